#!/bin/bash
# Scores the layers of the quickstart's model by every metric on the quickstart's data. Prints the table of the 8 best
# layers of each metric next to those of sparse-uniform, and writes the pictures. If it is interrupted, it continues where
# it stopped when you run it again.
# Run scripts/quickstart.sh first. OUT: folder of its results (default: checkpoints/quickstart). SAMPLES: number of
# samples (default: 200).
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-checkpoints/quickstart}
export LLAVA_CACHE=${LLAVA_CACHE:-$PWD/.cache}
source scripts/venv.sh
[ -d "$OUT/lora" ] || { echo "error: $OUT/lora does not exist; run bash scripts/quickstart.sh first" >&2; exit 1; }

SCORES=$OUT/importance/scores.json
if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null; then DTYPE=bf16; else DTYPE=fp32; fi
# If the scores of exactly this model and these settings are finished, nothing is measured again.
"$PYTHON" -m visual_region score --model-path "$OUT/lora" \
    --backbone playground/models/SmolLM2-135M-Instruct --data-path playground/data/easy_vqa/finetune.json \
    --image-folder playground/data/easy_vqa/images --samples "${SAMPLES:-200}" --dtype "$DTYPE" --batch-size 16 \
    --vision-feature-cache "$OUT/features" --output "$SCORES"
"$PYTHON" -m visual_region select "$SCORES#image-attention:8" "$SCORES#parameter-change:8" "$SCORES#bi:8" \
    "$SCORES#multimodal-bi:8" "$SCORES#angular:8" sparse-uniform:8 --stability --output "$OUT/importance/top8.json" \
    --markdown "$OUT/importance/top8.md" --picture "$OUT/importance/top8.png"
cat "$OUT/importance/top8.md"
