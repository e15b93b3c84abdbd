#!/bin/bash
# TDIUC validation: bash scripts/eval/tdiuc.sh CHECKPOINT [flags of model_vqa_loader]
# Settings by environment variables are in common.sh. It has 538,868 questions; for a sample of them:
# python -m llava.eval.prepare tdiuc --raw DIR --sample 20000, then QUESTIONS=questions.sample-20000. ANSWER_KEY: the
# authors' sample_answerkey.csv.
set -euo pipefail
source "$(dirname "$0")/common.sh" "$@"
DATA=${DATA:-./playground/data/eval/tdiuc}
ANSWERS=$DATA/answers${QUESTIONS:+/$QUESTIONS}/$NAME.jsonl
QUESTIONS=${QUESTIONS:-questions}

scorer eval_tdiuc "$ANSWERS" \
    --annotation-file "$DATA/mscoco_val2014_annotations.json" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    ${ANSWER_KEY:+--answer-key "$ANSWER_KEY"}

answer model_vqa_loader "$ANSWERS" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    --image-folder "${IMAGES:-$DATA/val2014}" \
    --max_new_tokens 32

score
