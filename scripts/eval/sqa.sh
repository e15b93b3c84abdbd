#!/bin/bash
# ScienceQA test: bash scripts/eval/sqa.sh CHECKPOINT [flags of model_vqa_science]
# Settings by environment variables are in common.sh.
set -euo pipefail
source "$(dirname "$0")/common.sh" "$@"
DATA=${DATA:-./playground/data/eval/scienceqa}
ANSWERS=$DATA/answers${QUESTIONS:+/$QUESTIONS}/$NAME.jsonl
QUESTIONS=${QUESTIONS:-llava_test_CQM-A}

scorer eval_science_qa "$ANSWERS" \
    --base-dir "$DATA" \
    --question-file "$DATA/$QUESTIONS.json" \
    --output-file "${ANSWERS%.jsonl}_output.json" \
    --output-result "${ANSWERS%.jsonl}_result.json"

answer model_vqa_science "$ANSWERS" \
    --question-file "$DATA/$QUESTIONS.json" \
    --image-folder "${IMAGES:-$DATA/images/test}" \
    --single-pred-prompt

score
