#!/bin/bash
# TextVQA validation, with OCR tokens as LLaVA asks it: bash scripts/eval/textvqa.sh CHECKPOINT [flags of model_vqa_loader]
# Settings by environment variables are in common.sh. Without the tokens: QUESTIONS=llava_textvqa_val_v051
set -euo pipefail
source "$(dirname "$0")/common.sh" "$@"
DATA=${DATA:-./playground/data/eval/textvqa}
ANSWERS=$DATA/answers${QUESTIONS:+/$QUESTIONS}/$NAME.jsonl
QUESTIONS=${QUESTIONS:-llava_textvqa_val_v051_ocr}

scorer eval_textvqa "$ANSWERS" \
    --annotation-file "$DATA/TextVQA_0.5.1_val.json" \
    --question-file "$DATA/$QUESTIONS.jsonl"

answer model_vqa_loader "$ANSWERS" \
    --question-file "$DATA/$QUESTIONS.jsonl" \
    --image-folder "${IMAGES:-$DATA/train_images}" \
    --max_new_tokens 128

score
