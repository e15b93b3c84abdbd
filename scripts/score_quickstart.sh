#!/bin/bash
# Where is the visual region of the quickstart's model, by which measure? Every metric on its own data, the table of
# their first 8 layers beside sparse-uniform's, and the pictures. Interrupted, it goes on where it stopped.
# Run scripts/quickstart.sh first. OUT: its results (default checkpoints/quickstart); SAMPLES: how many (default 200).
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-checkpoints/quickstart}
export LLAVA_CACHE=${LLAVA_CACHE:-$PWD/.cache}
source scripts/venv.sh
[ -d "$OUT/lora" ] || { echo "error: $OUT/lora is not there; run bash scripts/quickstart.sh first" >&2; exit 1; }

SCORES=$OUT/importance/scores.json
if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null; then DTYPE=bf16; else DTYPE=fp32; fi
# A finished file of this very model and these settings is not measured again; any other is.
"$PYTHON" -m visual_region score --model-path "$OUT/lora" \
    --backbone playground/models/SmolLM2-135M-Instruct --data-path playground/data/easy_vqa/finetune.json \
    --image-folder playground/data/easy_vqa/images --samples "${SAMPLES:-200}" --dtype "$DTYPE" --batch-size 16 \
    --vision-feature-cache "$OUT/features" --output "$SCORES"
"$PYTHON" -m visual_region select "$SCORES#image-attention:8" "$SCORES#parameter-change:8" "$SCORES#bi:8" \
    "$SCORES#multimodal-bi:8" "$SCORES#angular:8" sparse-uniform:8 --stability --output "$OUT/importance/top8.json" \
    --markdown "$OUT/importance/top8.md" --picture "$OUT/importance/top8.png"
cat "$OUT/importance/top8.md"
