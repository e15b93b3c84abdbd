#!/bin/bash
# Stage 1: train the projector on captions. Upstream: scripts/v1_5/pretrain.sh; its values are the defaults.
# Every value can be set from outside, e.g. MODEL=lmsys/vicuna-7b-v1.5 OUTPUT=./checkpoints/x bash scripts/train/pretrain.sh
# Further flags are passed on to the trainer. DRY_RUN=1 prints the command.
set -euo pipefail
source "$(dirname "$0")/common.sh"

launch llava/train/train_mem.py \
    --model_name_or_path "${MODEL:-lmsys/vicuna-7b-v1.5}" \
    --version "${VERSION:-plain}" \
    --data_path "${DATA:-./playground/data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json}" \
    --image_folder "${IMAGES:-./playground/data/LLaVA-Pretrain/images}" \
    --vision_tower "${TOWER:-openai/clip-vit-large-patch14-336}" \
    --mm_projector_type "${PROJECTOR_TYPE:-mlp2x_gelu}" \
    --tune_mm_mlp_adapter True \
    --mm_vision_select_layer -2 \
    --mm_use_im_start_end False \
    --mm_use_im_patch_token False \
    --bf16 "${BF16:-True}" \
    --output_dir "${OUTPUT:-./checkpoints/llava-v1.5-7b-pretrain}" \
    --num_train_epochs "${EPOCHS:-1}" \
    --max_steps "${STEPS:--1}" \
    --per_device_train_batch_size "${BATCH:-32}" \
    --per_device_eval_batch_size 4 \
    --gradient_accumulation_steps "${ACCUMULATION:-1}" \
    --evaluation_strategy "no" \
    --save_strategy "steps" \
    --save_steps "${SAVE_STEPS:-24000}" \
    --save_total_limit 1 \
    --learning_rate "${LR:-1e-3}" \
    --weight_decay 0. \
    --warmup_ratio "${WARMUP:-0.03}" \
    --lr_scheduler_type "cosine" \
    --logging_steps "${LOGGING_STEPS:-1}" \
    --tf32 True \
    --model_max_length "${MAX_LENGTH:-2048}" \
    --gradient_checkpointing "${CHECKPOINTING:-True}" \
    --dataloader_num_workers "${WORKERS:-4}" \
    --lazy_preprocess True \
    --report_to "${REPORT_TO:-none}" \
    "$@"
