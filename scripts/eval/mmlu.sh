#!/bin/bash
# MMLU, five examples a question: bash scripts/eval/mmlu.sh CHECKPOINT [flags of model_mmlu]
# METHOD: generate (the paper's prompt, the letter is read from the reply; the default) or loglikelihood (as lm-eval).
# LIMIT_PER_TASK: so many questions of each subject only, always the same ones (default: all 14,042).
# CONV: conversation template; NAME: name of the answers (default: the checkpoint's folder); RESULT: where the score goes.
set -euo pipefail
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}."
CHECKPOINT=${1:?usage: bash scripts/eval/mmlu.sh CHECKPOINT [flags]}
shift
PYTHON=${PYTHON:-python}
METHOD=${METHOD:-generate}
DATA=${DATA:-./playground/data/eval/mmlu}
QUESTIONS=$DATA/questions.jsonl
ANSWERS=$DATA/answers/$METHOD
if [ -n "${LIMIT_PER_TASK:-}" ]; then
    ANSWERS=$ANSWERS/limit_$LIMIT_PER_TASK
    QUESTIONS=$DATA/questions_$LIMIT_PER_TASK.jsonl
    $PYTHON -m llava.eval.subset --question-file "$DATA/questions.jsonl" --per-category "$LIMIT_PER_TASK" --output "$QUESTIONS"
fi
ANSWERS=$ANSWERS/${NAME:-$(basename "$CHECKPOINT")}.jsonl

$PYTHON -m llava.eval.model_mmlu \
    --model-path "$CHECKPOINT" \
    --question-file "$QUESTIONS" \
    --shots-file "$DATA/shots.json" \
    --answers-file "$ANSWERS" \
    --method "$METHOD" \
    --temperature 0 \
    ${CONV:+--conv-mode "$CONV"} \
    "$@"

$PYTHON -m llava.eval.eval_mmlu \
    --annotation-file "$DATA/annotations.json" \
    --question-file "$QUESTIONS" \
    --result-file "$ANSWERS" \
    ${RESULT:+--report-file "$RESULT"}
