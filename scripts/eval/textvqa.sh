#!/bin/bash
# TextVQA validation with OCR tokens: bash scripts/eval/textvqa.sh CHECKPOINT [flags of model_vqa_loader]
# QUESTIONS=llava_textvqa_val_v051 uses the questions without OCR tokens.
source "$(dirname "$0")/benchmark.sh" textvqa "$@"
