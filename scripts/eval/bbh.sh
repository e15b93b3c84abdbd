#!/bin/bash
# BIG-bench-hard, zero-shot: bash scripts/eval/bbh.sh CHECKPOINT [flags of model_vqa_loader]
# LIMIT_PER_TASK: so many questions of each task only, always the same ones (default: all 6,511).
# LAST_MATCH=1: the last answer in a reply counts, not the first. Further settings by environment variables: common.sh.
set -euo pipefail
source "$(dirname "$0")/common.sh" "$@"
DATA=${DATA:-./playground/data/eval/bbh}
QUESTIONS=${QUESTIONS:-questions}
if [ -n "${LIMIT_PER_TASK:-}" ]; then
    run "$PYTHON" -m llava.eval.answering.subset --question-file "$DATA/$QUESTIONS.jsonl" --per-category "$LIMIT_PER_TASK" \
        --output "$DATA/$QUESTIONS.limit-$LIMIT_PER_TASK.jsonl"
    QUESTIONS=$QUESTIONS.limit-$LIMIT_PER_TASK
fi
ANSWERS=$DATA/answers/$QUESTIONS/$NAME.jsonl

scorer eval_bbh "$ANSWERS" \
    --annotation-file "$DATA/annotations.json" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    ${LAST_MATCH:+--last-match}

answer model_vqa_loader "$ANSWERS" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    --max_new_tokens 128

score
