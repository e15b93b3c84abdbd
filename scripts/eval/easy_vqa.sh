#!/bin/bash
# easy-VQA: bash scripts/eval/easy_vqa.sh CHECKPOINT [flags of model_vqa_loader]
# Settings by environment variables are in common.sh. QUESTIONS: a file of the folder, without .jsonl (default: the whole test).
set -euo pipefail
source "$(dirname "$0")/common.sh" "$@"
DATA=${DATA:-./playground/data/eval/easy_vqa}
QUESTIONS=${QUESTIONS:-questions}
ANSWERS=$DATA/answers/$QUESTIONS/$NAME.jsonl

scorer eval_easy_vqa "$ANSWERS" \
    --annotation-file "$DATA/annotations.json" \
    --question-file "$DATA/$QUESTIONS.jsonl"

answer model_vqa_loader "$ANSWERS" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    --image-folder "${IMAGES:-./playground/data/easy_vqa/images}" \
    --max_new_tokens 8

score
