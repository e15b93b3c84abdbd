#!/bin/bash
# TextVQA validation with OCR tokens (without: QUESTIONS=llava_textvqa_val_v051): bash scripts/eval/textvqa.sh CHECKPOINT [flags of model_vqa_loader]
source "$(dirname "$0")/benchmark.sh" textvqa "$@"
