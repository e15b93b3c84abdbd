#!/bin/bash
# OCR-VQA test: bash scripts/eval/ocrvqa.sh CHECKPOINT [flags of model_vqa_loader]
# Settings by environment variables are in common.sh.
set -euo pipefail
source "$(dirname "$0")/common.sh" "$@"
DATA=${DATA:-./playground/data/eval/ocrvqa}
ANSWERS=$DATA/answers${QUESTIONS:+/$QUESTIONS}/$NAME.jsonl
QUESTIONS=${QUESTIONS:-questions}

scorer eval_ocrvqa "$ANSWERS" \
    --annotation-file "$DATA/dataset.json" \
    --question-file "$DATA/$QUESTIONS.jsonl"

answer model_vqa_loader "$ANSWERS" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    --image-folder "${IMAGES:-$DATA/images}" \
    --max_new_tokens 100

score
