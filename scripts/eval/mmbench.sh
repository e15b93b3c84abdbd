#!/bin/bash
# MMBench dev: bash scripts/eval/mmbench.sh CHECKPOINT [flags of model_vqa_mmbench]
# Scores on this machine, and writes the sheet for MMBench's server. Settings by environment variables are in common.sh.
set -euo pipefail
source "$(dirname "$0")/common.sh" "$@"
DATA=${DATA:-./playground/data/eval/mmbench}
QUESTIONS=${QUESTIONS:-mmbench_dev_20230712}
ANSWERS=$DATA/answers/$QUESTIONS/$NAME.jsonl

scorer eval_mmbench "$ANSWERS" \
    --annotation-file "$DATA/$QUESTIONS.tsv"

answer model_vqa_mmbench "$ANSWERS" \
    --question-file "$DATA/$QUESTIONS.tsv" \
    --single-pred-prompt

run "$PYTHON" -m llava.eval.convert_mmbench \
    --annotation-file "$DATA/$QUESTIONS.tsv" \
    --result-dir "$(dirname "$ANSWERS")" \
    --upload-dir "$DATA/answers_upload/$QUESTIONS" \
    --experiment "$NAME"

score
