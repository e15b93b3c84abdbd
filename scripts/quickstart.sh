#!/bin/bash
# Trains a vision-language model in 25% of its layers, evaluates it, removes layers, heals what is left and evaluates it
# again: on a laptop, without a GPU or a model hub. docs/results.md has the time of one run; without bfloat16 instructions
# (AVX512-BF16, AMX) it takes longer. If you run it again, it continues where it stopped.
# OUT: folder of the results (default: checkpoints/quickstart). TUNE_LAYERS: the layers to tune (default:
# sparse-uniform:25%). A run with other settings needs another OUT.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-checkpoints/quickstart}
# The scripts of the stages would only print their commands, and the stages would be recorded as finished.
if [ -n "${DRY_RUN:-}" ]; then
    echo "error: the quickstart has no dry run; unset DRY_RUN" >&2
    exit 2
fi
mkdir -p "$OUT/stages"
export LLAVA_CACHE=${LLAVA_CACHE:-$PWD/.cache}

# settings_of COMMAND...: its flags and their values, one flag in a line; of a script, those of the commands that it runs.
# The interpreter is left out, and so are the place of OUT and the number of processes that answer.
settings_of() {
    local text
    text=$(if [ "$1" = env ]; then DRY_RUN=1 "$@"; else printf '%q ' "$@"; fi)
    sed -E 's/^[^ ]+ //; s/ --/\n--/g' <<< "${text//"$OUT"/OUT}" | without_processes
}

# without_processes: settings without --gpus, which changes no answer, and differs with and without a GPU. Records of
# earlier versions have it.
without_processes() { sed -zE 's/\n--gpus [0-9]+ / /g'; }

# stage NAME COMMAND...: runs a stage once, and records its settings and its seconds. A finished stage is skipped. A stage
# that was begun with other settings is an error.
stage() {
    local name=$1 begin=$SECONDS record=$OUT/stages/$1.settings settings recorded
    shift
    settings=$(settings_of "$@")
    recorded=$([ ! -e "$record" ] || without_processes < "$record")
    if [ -e "$record" ] && [ "$settings" != "$recorded" ]; then
        # grep fails if no line is left: a flag may only have been added, or removed.
        before=$({ grep -vxFf <(echo "$settings") <<< "$recorded" || true; } | paste -sd ' ')
        now=$({ grep -vxFf <(echo "$recorded") <<< "$settings" || true; } | paste -sd ' ')
        echo "error: the stage $name in $OUT was begun with other settings: ${before:-nothing} before, ${now:-nothing} now." \
            "Set OUT to another folder, such as OUT=$OUT-2, or delete $OUT" >&2
        exit 1
    fi
    if [ -e "$OUT/stages/$name" ]; then
        echo "== $name: done before"
        return
    fi
    echo "== $name"
    echo "$settings" > "$record.partial"
    mv "$record.partial" "$record"
    "$@"
    echo "$((SECONDS - begin))" > "$OUT/stages/$name.partial"
    mv "$OUT/stages/$name.partial" "$OUT/stages/$name"
}

install() { source scripts/venv.sh; }
stage install install
source scripts/venv.sh

# bfloat16 is twice as fast on a processor that supports it, and slow on one that does not.
if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null; then BF16=True DTYPE=bf16; else BF16=False DTYPE=fp32; fi
# A single process needs no sharding. With more, a step would take more samples.
export BF16 DEEPSPEED=
if nvidia-smi -L >/dev/null 2>&1; then export GPUS=${GPUS:-1}; fi
export MODEL=playground/models/SmolLM2-135M-Instruct TOWER=playground/models/efficientnet-lite0-128
export IMAGES=playground/data/easy_vqa/images CHECKPOINTING=False WORKERS=0 MAX_LENGTH=512 LOGGING_STEPS=10
FEATURES=(--vision_feature_cache "$OUT/features")
EVALUATE=(--dtype "$DTYPE" --batch-size 64 --vision-feature-cache "$OUT/features")
QUESTIONS_DIR=playground/data/eval/easy_vqa

stage prepare "$PYTHON" -m playground.embedded.prepare

# Stage 1: train the projector on captions, which name what the image shows ("teal circle").
stage pretrain env DATA=playground/data/easy_vqa/pretrain.json OUTPUT="$OUT/pretrain" VERSION=chatml STEPS=60 BATCH=32 LR=5e-3 WARMUP=0.1 \
    SAVE_STEPS=30 bash scripts/train/pretrain.sh "${FEATURES[@]}"

# Stage 2: train LoRA in a quarter of the decoder layers, spread over the depth, and the projector.
stage finetune env DATA=playground/data/easy_vqa/finetune.json OUTPUT="$OUT/lora" PROJECTOR="$OUT/pretrain/mm_projector.bin" \
    VERSION=chatml TUNE_LAYERS="${TUNE_LAYERS:-sparse-uniform:25%}" STEPS=240 BATCH=8 LR=1e-3 PROJECTOR_LR=1e-3 \
    LORA_R=32 LORA_ALPHA=64 SAVE_STEPS=50 bash scripts/train/finetune_lora.sh --lora_dropout 0 "${FEATURES[@]}"

stage evaluate env QUESTIONS=questions_1200 NAME="$(basename "$OUT")" RESULT="$OUT/accuracy.json" \
    bash scripts/eval/easy_vqa.sh "$OUT/lora" "${EVALUATE[@]}"
stage wrong_image env QUESTIONS=questions_wrong_image NAME="$(basename "$OUT")" RESULT="$OUT/wrong_image.json" \
    bash scripts/eval/easy_vqa.sh "$OUT/lora" "${EVALUATE[@]}"

# Find the layers that change the angle of the last prompt token's state least, and measure the accuracy without them.
stage score "$PYTHON" -m visual_region score --model-path "$OUT/lora" --data-path playground/data/easy_vqa/finetune.json \
    --image-folder "$IMAGES" --samples 64 --output "$OUT/scores.json" "${EVALUATE[@]}"
CURVE=(--scores "$OUT/scores.json" --question-file "$QUESTIONS_DIR/questions_1200.jsonl"
    --annotation-file "$QUESTIONS_DIR/annotations.json" --image-folder "$IMAGES" --limit 600)
stage curve "$PYTHON" -m visual_region curve --model-path "$OUT/lora" "${CURVE[@]}" --output "$OUT/curve.json" "${EVALUATE[@]}"

# If all layers are tuned, none lies outside the region.
ANYWHERE=()
[ "${TUNE_LAYERS:-}" != all ] || ANYWHERE=(--anywhere)
# An earlier version recorded this stage without --anywhere. An unfinished one begins anew, so its record is not needed.
[ -e "$OUT/stages/remove" ] || rm -f "$OUT/stages/remove.settings"
# Remove two layers, let the rest learn the whole model's answers on training data, and measure the same questions.
stage remove "$PYTHON" -m visual_region prune --model-path "$OUT/lora" --scores "$OUT/scores.json" --remove 2 \
    "${ANYWHERE[@]}" --dtype "$DTYPE" --output "$OUT/pruned2" --overwrite
stage heal "$PYTHON" -m visual_region heal --model-path "$OUT/pruned2" --teacher "$OUT/lora" \
    --data-path playground/data/easy_vqa/finetune.json --image-folder "$IMAGES" --tune-layers sparse-uniform:25% --lora-r 32 \
    --steps 30 --batch-size 8 --learning-rate 1e-3 --save-steps 10 --dtype "$DTYPE" --vision-feature-cache "$OUT/features" \
    --output "$OUT/healed"
stage healed "$PYTHON" -m visual_region curve --model-path "$OUT/healed" --most 0 "${CURVE[@]}" --output "$OUT/healed.json" \
    "${EVALUATE[@]}"

"$PYTHON" -m playground.embedded.report --out "$OUT" --blind "$QUESTIONS_DIR/blind.json"
