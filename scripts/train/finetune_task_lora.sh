#!/bin/bash
# Train a finished LLaVA-1.5 further with LoRA on your own task (DATA, IMAGES).
# Upstream: scripts/v1_5/finetune_task_lora.sh; its values for LLaVA-1.5 13B are the defaults. SIZE=7b trains the 7B model.
# TUNE_LAYERS: the decoder layers to tune. The paper's choice is sparse-uniform:25%. Default: all layers, as upstream.
# Each value can be set by an environment variable; further flags are passed on to the trainer. common.sh describes
# launching, DeepSpeed and DRY_RUN.
set -euo pipefail
source "$(dirname "$0")/common.sh"
SIZE=${SIZE:-13b}
DEEPSPEED=${DEEPSPEED-auto}

launch llava/train/train_mem.py \
    --lora_enable True --lora_r "${LORA_R:-128}" --lora_alpha "${LORA_ALPHA:-256}" \
    --mm_projector_lr "${PROJECTOR_LR:-2e-5}" \
    --tune_layers "${TUNE_LAYERS:-all}" \
    --model_name_or_path "${MODEL:-liuhaotian/llava-v1.5-$SIZE}" \
    --version "${VERSION:-v1}" \
    --data_path "${DATA:-./playground/data/llava_v1_5_mix665k.json}" \
    --image_folder "${IMAGES:-./playground/data}" \
    --vision_tower "${TOWER:-openai/clip-vit-large-patch14-336}" \
    --mm_projector_type "${PROJECTOR_TYPE:-mlp2x_gelu}" \
    --image_aspect_ratio "${ASPECT:-pad}" \
    --group_by_modality_length "${GROUP:-True}" \
    --output_dir "${OUTPUT:-./checkpoints/llava-v1.5-$SIZE-task-lora}" \
    --per_device_train_batch_size "${BATCH:-16}" \
    --save_steps "${SAVE_STEPS:-50000}" \
    --learning_rate "${LR:-2e-4}" \
    "${LLAVA[@]}" "${COMMON[@]}" "$@"
