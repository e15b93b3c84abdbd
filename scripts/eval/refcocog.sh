#!/bin/bash
# RefCOCOg test (UMD): bash scripts/eval/refcocog.sh CHECKPOINT [flags of model_vqa_loader]
# Settings by environment variables are in common.sh. FRAME: what boxes are shares of, padded or original
# (default: as the checkpoint's config says).
set -euo pipefail
source "$(dirname "$0")/common.sh" "$@"
DATA=${DATA:-./playground/data/eval/refcocog}
ANSWERS=$DATA/answers${QUESTIONS:+/$QUESTIONS}/$NAME.jsonl
QUESTIONS=${QUESTIONS:-questions}

scorer eval_refcocog "$ANSWERS" \
    --annotation-file "$DATA/annotations.json" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    --model-path "$CHECKPOINT" \
    ${FRAME:+--frame "$FRAME"}

answer model_vqa_loader "$ANSWERS" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    --image-folder "${IMAGES:-$DATA/train2014}" \
    --max_new_tokens 64

score
