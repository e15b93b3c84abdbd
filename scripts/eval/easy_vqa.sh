#!/bin/bash
# easy-VQA: bash scripts/eval/easy_vqa.sh CHECKPOINT [flags of model_vqa_loader]
# QUESTIONS: name of a question file in playground/data/eval/easy_vqa, without .jsonl (default: questions, the whole test)
# CONV: conversation template (default: what the checkpoint records); NAME: name of the answers (default: the checkpoint's folder).
set -euo pipefail
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}."
CHECKPOINT=${1:?usage: bash scripts/eval/easy_vqa.sh CHECKPOINT [flags]}
shift
PYTHON=${PYTHON:-python}
DATA=./playground/data/eval/easy_vqa
QUESTIONS=${QUESTIONS:-questions}
ANSWERS=$DATA/answers/$QUESTIONS/${NAME:-$(basename "$CHECKPOINT")}.jsonl

$PYTHON -m llava.eval.model_vqa_loader \
    --model-path "$CHECKPOINT" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    --image-folder "${IMAGES:-./playground/data/easy_vqa/images}" \
    --answers-file "$ANSWERS" \
    --temperature 0 \
    --max_new_tokens 8 \
    ${CONV:+--conv-mode "$CONV"} \
    "$@"

$PYTHON -m llava.eval.eval_easy_vqa \
    --annotation-file "$DATA/annotations.json" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    --result-file "$ANSWERS" \
    --output-file "${RESULT:-${ANSWERS%.jsonl}.score.json}"
