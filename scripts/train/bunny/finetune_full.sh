#!/bin/bash
# Bunny's stage 2 with the layers' own weights: those of TUNE_LAYERS (default: all layers).
# Upstream: script/train/finetune_full.sh; its values are the defaults.
# Each value can be set by an environment variable; further flags are passed on to the trainer. ../common.sh describes
# launching, DeepSpeed and DRY_RUN.
set -euo pipefail
ACCUMULATION=${ACCUMULATION:-2}
source "$(dirname "$0")/../common.sh"
MODEL_TYPE=${MODEL_TYPE:-phi-2}
DEEPSPEED=${DEEPSPEED-./scripts/zero3.json}
# PROJECTOR= trains a Bunny further, whose projector is trained already.
PROJECTOR=${PROJECTOR-./checkpoints-pretrain/bunny-$MODEL_TYPE-pretrain/mm_projector.bin}

launch bunny/train/train.py \
    --tune_layers "${TUNE_LAYERS:-all}" \
    --model_name_or_path "${MODEL:-microsoft/phi-2}" \
    --model_type "$MODEL_TYPE" \
    --version "${VERSION:-bunny}" \
    --data_path "${DATA:-./data/finetune/bunny_695k.json}" \
    --image_folder "${IMAGES:-./data/finetune/images}" \
    --vision_tower "${TOWER:-google/siglip-so400m-patch14-384}" \
    --use_s2 "${USE_S2:-False}" \
    --unfreeze_vision_tower "${UNFREEZE_TOWER:-False}" \
    --mm_projector_type "${PROJECTOR_TYPE:-mlp2x_gelu}" \
    ${PROJECTOR:+--pretrain_mm_mlp_adapter "$PROJECTOR"} \
    --image_aspect_ratio "${ASPECT:-pad}" \
    --group_by_modality_length "${GROUP:-False}" \
    --output_dir "${OUTPUT:-./checkpoints-$MODEL_TYPE/bunny-$MODEL_TYPE}" \
    --per_device_train_batch_size "${BATCH:-8}" \
    --save_steps "${SAVE_STEPS:-500}" \
    --learning_rate "${LR:-2e-5}" \
    "${COMMON[@]}" "$@"
