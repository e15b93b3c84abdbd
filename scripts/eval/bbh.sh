#!/bin/bash
# BIG-bench-hard, zero-shot: bash scripts/eval/bbh.sh CHECKPOINT [flags of model_vqa_loader]
# LIMIT_PER_TASK: so many questions of each task only, always the same ones (default: all 6,511).
# CONV: conversation template; NAME: name of the answers (default: the checkpoint's folder); RESULT: where the score goes.
set -euo pipefail
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}."
CHECKPOINT=${1:?usage: bash scripts/eval/bbh.sh CHECKPOINT [flags]}
shift
PYTHON=${PYTHON:-python}
DATA=${DATA:-./playground/data/eval/bbh}
QUESTIONS=$DATA/questions.jsonl
ANSWERS=$DATA/answers
if [ -n "${LIMIT_PER_TASK:-}" ]; then
    ANSWERS=$DATA/answers/limit_$LIMIT_PER_TASK
    QUESTIONS=$DATA/questions_$LIMIT_PER_TASK.jsonl
    $PYTHON -m llava.eval.subset --question-file "$DATA/questions.jsonl" --per-category "$LIMIT_PER_TASK" --output "$QUESTIONS"
fi
ANSWERS=$ANSWERS/${NAME:-$(basename "$CHECKPOINT")}.jsonl

$PYTHON -m llava.eval.model_vqa_loader \
    --model-path "$CHECKPOINT" \
    --question-file "$QUESTIONS" \
    --answers-file "$ANSWERS" \
    --temperature 0 \
    --max_new_tokens 128 \
    ${CONV:+--conv-mode "$CONV"} \
    "$@"

$PYTHON -m llava.eval.eval_bbh \
    --annotation-file "$DATA/annotations.json" \
    --question-file "$QUESTIONS" \
    --result-file "$ANSWERS" \
    ${RESULT:+--report-file "$RESULT"}
