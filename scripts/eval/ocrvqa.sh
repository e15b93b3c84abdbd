#!/bin/bash
# OCR-VQA test: bash scripts/eval/ocrvqa.sh CHECKPOINT [flags of model_vqa_loader]
source "$(dirname "$0")/benchmark.sh" ocrvqa "$@"
