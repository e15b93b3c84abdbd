#!/bin/bash
# Bunny's stage 1: train the projector on captions. Upstream: script/train/pretrain.sh; its values are the defaults
# (ZeRO-2 is DEEPSPEED=./scripts/zero2.json).
# Every value can be set from outside; further flags are passed on to the trainer. DRY_RUN=1 prints the command.
set -euo pipefail
source "$(dirname "$0")/../common.sh"

MODEL_TYPE="${MODEL_TYPE:-phi-2}"
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
    --image_aspect_ratio square \
    --bf16 "${BF16:-True}" \
    --output_dir "${OUTPUT:-./checkpoints-pretrain/bunny-$MODEL_TYPE-pretrain}" \
    --num_train_epochs "${EPOCHS:-1}" \
    --max_steps "${STEPS:--1}" \
    --per_device_train_batch_size "${BATCH:-8}" \
    --per_device_eval_batch_size 4 \
    --gradient_accumulation_steps "${ACCUMULATION:-4}" \
    --evaluation_strategy "no" \
    --save_strategy "steps" \
    --save_steps "${SAVE_STEPS:-24000}" \
    --save_total_limit 1 \
    --learning_rate "${LR:-5e-4}" \
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
