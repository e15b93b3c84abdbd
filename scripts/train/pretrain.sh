#!/bin/bash
# Stage 1: train the projector on captions.
# Upstream: scripts/v1_5/pretrain.sh; its values for LLaVA-1.5 13B are the defaults. SIZE=7b trains the 7B model.
# Each value can be set by an environment variable; further flags are passed on to the trainer. common.sh describes
# launching, DeepSpeed and DRY_RUN.
set -euo pipefail
source "$(dirname "$0")/common.sh"
SIZE=${SIZE:-13b}
DEEPSPEED=${DEEPSPEED-./scripts/zero2.json}

launch llava/train/train_mem.py \
    --model_name_or_path "${MODEL:-lmsys/vicuna-$SIZE-v1.5}" \
    --version "${VERSION:-plain}" \
    --data_path "${DATA:-./playground/data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json}" \
    --image_folder "${IMAGES:-./playground/data/LLaVA-Pretrain/images}" \
    --vision_tower "${TOWER:-openai/clip-vit-large-patch14-336}" \
    --mm_projector_type "${PROJECTOR_TYPE:-mlp2x_gelu}" \
    --image_aspect_ratio "${ASPECT:-square}" \
    --tune_mm_mlp_adapter True \
    --output_dir "${OUTPUT:-./checkpoints/llava-v1.5-$SIZE-pretrain}" \
    --per_device_train_batch_size "${BATCH:-32}" \
    --save_steps "${SAVE_STEPS:-24000}" \
    --learning_rate "${LR:-1e-3}" \
    "${LLAVA[@]}" "${COMMON[@]}" "$@"
