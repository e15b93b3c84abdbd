#!/bin/bash
# Bunny's stage 2 with whole layers: all, or those of TUNE_LAYERS. Upstream: script/train/finetune_full.sh; its values are
# the defaults (ZeRO-3 is DEEPSPEED=./scripts/zero3.json).
# Every value can be set from outside; further flags are passed on to the trainer. DRY_RUN=1 prints the command.
set -euo pipefail
source "$(dirname "$0")/../common.sh"

MODEL_TYPE="${MODEL_TYPE:-phi-2}"
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
    --pretrain_mm_mlp_adapter "${PROJECTOR:-./checkpoints-pretrain/bunny-$MODEL_TYPE-pretrain/mm_projector.bin}" \
    --image_aspect_ratio pad \
    --group_by_modality_length False \
    --bf16 "${BF16:-True}" \
    --output_dir "${OUTPUT:-./checkpoints-$MODEL_TYPE/bunny-$MODEL_TYPE}" \
    --num_train_epochs "${EPOCHS:-1}" \
    --max_steps "${STEPS:--1}" \
    --per_device_train_batch_size "${BATCH:-8}" \
    --per_device_eval_batch_size 4 \
    --gradient_accumulation_steps "${ACCUMULATION:-2}" \
    --evaluation_strategy "no" \
    --save_strategy "steps" \
    --save_steps "${SAVE_STEPS:-500}" \
    --save_total_limit 1 \
    --learning_rate "${LR:-2e-5}" \
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
