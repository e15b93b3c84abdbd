#!/bin/bash
# Stage 2 with LoRA in the decoder layers of TUNE_LAYERS. Upstream: scripts/v1_5/finetune_lora.sh; its values are the
# defaults. The paper's choice is TUNE_LAYERS=sparse-uniform:25%; without it all layers are tuned, as upstream.
# Every value can be set from outside; further flags are passed on to the trainer. DRY_RUN=1 prints the command.
set -euo pipefail
source "$(dirname "$0")/common.sh"

launch llava/train/train_mem.py \
    --lora_enable True --lora_r "${LORA_R:-128}" --lora_alpha "${LORA_ALPHA:-256}" \
    --mm_projector_lr "${PROJECTOR_LR:-2e-5}" \
    --tune_layers "${TUNE_LAYERS:-all}" \
    --model_name_or_path "${MODEL:-lmsys/vicuna-7b-v1.5}" \
    --version "${VERSION:-v1}" \
    --data_path "${DATA:-./playground/data/llava_v1_5_mix665k.json}" \
    --image_folder "${IMAGES:-./playground/data}" \
    --vision_tower "${TOWER:-openai/clip-vit-large-patch14-336}" \
    --pretrain_mm_mlp_adapter "${PROJECTOR:-./checkpoints/llava-v1.5-7b-pretrain/mm_projector.bin}" \
    --mm_projector_type "${PROJECTOR_TYPE:-mlp2x_gelu}" \
    --mm_vision_select_layer -2 \
    --mm_use_im_start_end False \
    --mm_use_im_patch_token False \
    --image_aspect_ratio pad \
    --group_by_modality_length True \
    --bf16 "${BF16:-True}" \
    --output_dir "${OUTPUT:-./checkpoints/llava-v1.5-7b-lora}" \
    --num_train_epochs "${EPOCHS:-1}" \
    --max_steps "${STEPS:--1}" \
    --per_device_train_batch_size "${BATCH:-16}" \
    --per_device_eval_batch_size 4 \
    --gradient_accumulation_steps "${ACCUMULATION:-1}" \
    --evaluation_strategy "no" \
    --save_strategy "steps" \
    --save_steps "${SAVE_STEPS:-50000}" \
    --save_total_limit 1 \
    --learning_rate "${LR:-2e-4}" \
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
