#!/bin/bash
# GQA test-dev, balanced: bash scripts/eval/gqa.sh CHECKPOINT [flags of model_vqa_loader]
# Settings by environment variables are in common.sh.
set -euo pipefail
source "$(dirname "$0")/common.sh" "$@"
DATA=${DATA:-./playground/data/eval/gqa}
QUESTIONS=${QUESTIONS:-llava_gqa_testdev_balanced}
ANSWERS=$DATA/answers/$QUESTIONS/$NAME/merge.jsonl

scorer eval_gqa "$ANSWERS" \
    --annotation-file "$DATA/data/testdev_balanced_questions.json" \
    --question-file "$DATA/$QUESTIONS.jsonl"

answer model_vqa_loader "$ANSWERS" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    --image-folder "${IMAGES:-$DATA/data/images}" \
    --max_new_tokens 128

# For GQA's own script; ours reads the answers.
run "$PYTHON" -m llava.eval.convert_gqa --src "$ANSWERS" --dst "$(dirname "$ANSWERS")/testdev_balanced_predictions.json"

score
