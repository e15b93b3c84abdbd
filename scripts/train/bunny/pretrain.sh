#!/bin/bash
# Bunny's stage 1: train the projector on captions. Upstream: script/train/pretrain.sh; its values are the defaults.
# Each value can be set by an environment variable; further flags are passed on to the trainer. ../common.sh describes
# launching, DeepSpeed and DRY_RUN.
set -euo pipefail
ACCUMULATION=${ACCUMULATION:-4}
source "$(dirname "$0")/../common.sh"
MODEL_TYPE=${MODEL_TYPE:-phi-2}
DEEPSPEED=${DEEPSPEED-./scripts/zero2.json}

launch bunny/train/train.py \
    --model_name_or_path "${MODEL:-microsoft/phi-2}" \
    --model_type "$MODEL_TYPE" \
    --version "${VERSION:-plain}" \
    --data_path "${DATA:-./data/pretrain/bunny_pretrain_laion_2m.json}" \
    --image_folder "${IMAGES:-./data/pretrain/images}" \
    --vision_tower "${TOWER:-google/siglip-so400m-patch14-384}" \
    --use_s2 "${USE_S2:-False}" \
    --unfreeze_vision_tower "${UNFREEZE_TOWER:-False}" \
    --mm_projector_type "${PROJECTOR_TYPE:-mlp2x_gelu}" \
    --tune_mm_mlp_adapter True \
    --image_aspect_ratio "${ASPECT:-square}" \
    --output_dir "${OUTPUT:-./checkpoints-pretrain/bunny-$MODEL_TYPE-pretrain}" \
    --per_device_train_batch_size "${BATCH:-8}" \
    --save_steps "${SAVE_STEPS:-24000}" \
    --learning_rate "${LR:-5e-4}" \
    "${COMMON[@]}" "$@"
