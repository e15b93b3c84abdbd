#!/bin/bash
# DocVQA validation: bash scripts/eval/docvqa.sh CHECKPOINT [flags of model_vqa_loader]
# Settings by environment variables are in common.sh.
set -euo pipefail
source "$(dirname "$0")/common.sh" "$@"
DATA=${DATA:-./playground/data/eval/docvqa}
ANSWERS=$DATA/answers${QUESTIONS:+/$QUESTIONS}/$NAME.jsonl
QUESTIONS=${QUESTIONS:-questions}

scorer eval_docvqa "$ANSWERS" \
    --annotation-file "$DATA/val_v1.0_withQT.json" \
    --question-file "$DATA/$QUESTIONS.jsonl"

answer model_vqa_loader "$ANSWERS" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    --image-folder "${IMAGES:-$DATA/documents}" \
    --max_new_tokens 100

score
