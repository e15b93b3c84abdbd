#!/bin/bash
# MMLU, five examples a question: bash scripts/eval/mmlu.sh CHECKPOINT [flags of model_mmlu]
# METHOD: generate (the paper's prompt, the letter is read from the reply; the default) or loglikelihood (as lm-eval).
# LIMIT_PER_TASK: so many questions of each subject only, always the same ones (default: all 14,042).
# Further settings by environment variables: common.sh.
set -euo pipefail
source "$(dirname "$0")/common.sh" "$@"
METHOD=${METHOD:-generate}
DATA=${DATA:-./playground/data/eval/mmlu}
QUESTIONS=${QUESTIONS:-questions}
if [ -n "${LIMIT_PER_TASK:-}" ]; then
    run "$PYTHON" -m llava.eval.answering.subset --question-file "$DATA/$QUESTIONS.jsonl" --per-category "$LIMIT_PER_TASK" \
        --output "$DATA/$QUESTIONS.limit-$LIMIT_PER_TASK.jsonl"
    QUESTIONS=$QUESTIONS.limit-$LIMIT_PER_TASK
fi
ANSWERS=$DATA/answers/$QUESTIONS/$METHOD/$NAME.jsonl

scorer eval_mmlu "$ANSWERS" \
    --annotation-file "$DATA/annotations.json" \
    --question-file "$DATA/$QUESTIONS.jsonl"

answer model_mmlu "$ANSWERS" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    --shots-file "$DATA/shots.json" \
    --method "$METHOD"

score
