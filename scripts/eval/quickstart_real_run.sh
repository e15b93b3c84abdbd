#!/bin/bash
# Compares the quickstart's region-tuned SmolLM2 with its unchanged backbone: easy-VQA, BIG-bench-hard, perplexity of
# WikiText-2. Usage: bash scripts/eval/quickstart_real_run.sh
# Run scripts/quickstart.sh first, and prepare the two text data sets (playground/data/eval/README.md). If you run it again,
# it continues where it stopped.
# PER_KIND: easy-VQA questions of each kind (default: 100 of the quickstart's sample). LIMIT_PER_TASK: BIG-bench-hard
# questions of each task (default: 10 of 250, and the score reports the subset; empty for all). MAX_TOKENS: tokens of
# WikiText-2 (default: 32768; empty for all). OUT: folder of the results.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -n "${PYTHON:-}" ] || source scripts/venv.sh
export PYTHON
REGION=${REGION:-checkpoints/quickstart/lora}
BACKBONE=${BACKBONE:-playground/models/SmolLM2-135M-Instruct}
OUT=${OUT:-checkpoints/quickstart/real_run}
PER_KIND=${PER_KIND:-100}
export LIMIT_PER_TASK=${LIMIT_PER_TASK-10} MAX_TOKENS=${MAX_TOKENS-32768} CONV=chatml
export LLAVA_CACHE=${LLAVA_CACHE:-$PWD/.cache}
if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null; then DTYPE=bf16; else DTYPE=fp32; fi
FLAGS=(--dtype "$DTYPE" --batch-size 32)
# Features of the frozen tower that the quickstart has written.
SEEING=("${FLAGS[@]}" --vision-feature-cache "$(dirname "$REGION")/features")
QUESTIONS_DIR=playground/data/eval/easy_vqa

# The backbone has no projector and cannot use an image, so it gets the same questions without images. The region-tuned
# model answers both with and without images, to show what the images contribute.
SEEN=questions_1200.limit-$PER_KIND BLIND=questions_1200.limit-$PER_KIND.blind
"$PYTHON" -m llava.eval.answering.subset --question-file "$QUESTIONS_DIR/questions_1200.jsonl" --per-category "$PER_KIND" \
    --output "$QUESTIONS_DIR/$SEEN.jsonl"
"$PYTHON" -m llava.eval.answering.subset --question-file "$QUESTIONS_DIR/$SEEN.jsonl" --without-images \
    --output "$QUESTIONS_DIR/$BLIND.jsonl"

# The checkpoint's model card keeps the scores of the last of these runs.
"$PYTHON" -m llava.eval.suite.all "$REGION" --only easy_vqa --questions easy_vqa="$BLIND" --results "$OUT/region, no images" "${FLAGS[@]}"
"$PYTHON" -m llava.eval.suite.all "$REGION" --only easy_vqa --questions easy_vqa="$SEEN" --results "$OUT/region" "${SEEING[@]}"
"$PYTHON" -m llava.eval.suite.all "$REGION" --only bbh perplexity --results "$OUT/region" "${FLAGS[@]}"
"$PYTHON" -m llava.eval.suite.all "$BACKBONE" --only easy_vqa --questions easy_vqa="$BLIND" --results "$OUT/backbone, no images" "${FLAGS[@]}"
"$PYTHON" -m llava.eval.suite.all "$BACKBONE" --only bbh perplexity --results "$OUT/backbone, no images" "${FLAGS[@]}"

"$PYTHON" -m llava.eval.suite.compare "$OUT/backbone, no images" "$OUT/region" "$OUT/region, no images" --output "$OUT/comparison"
