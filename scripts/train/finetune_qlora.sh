#!/bin/bash
# Stage 2 with LoRA on a language model quantized to 4 bits (BITS=8: 8 bits), in the decoder layers of TUNE_LAYERS.
# Upstream: scripts/finetune_qlora.sh. It is for the first LLaVA: tower at 224 pixels, linear projector. Its values are
# the defaults. For LLaVA-1.5, run finetune_lora.sh --bits 4 instead.
# Each value can be set by an environment variable; further flags are passed on to the trainer. common.sh describes
# launching, DeepSpeed and DRY_RUN.
set -euo pipefail
source "$(dirname "$0")/common.sh"
MODEL_VERSION=${MODEL_VERSION:-vicuna-v1-3-7b}
PROMPT_VERSION=${PROMPT_VERSION:-v1}
DEEPSPEED=${DEEPSPEED-auto}

launch llava/train/train_mem.py \
    --lora_enable True --lora_r "${LORA_R:-64}" --lora_alpha "${LORA_ALPHA:-16}" \
    --bits "${BITS:-4}" --quant_type "${QUANT_TYPE:-nf4}" --double_quant "${DOUBLE_QUANT:-True}" \
    ${PROJECTOR_LR:+--mm_projector_lr "$PROJECTOR_LR"} \
    --tune_layers "${TUNE_LAYERS:-all}" \
    --model_name_or_path "${MODEL:-./checkpoints/$MODEL_VERSION}" \
    --version "${VERSION:-$PROMPT_VERSION}" \
    --data_path "${DATA:-./playground/data/llava_instruct_80k.json}" \
    --image_folder "${IMAGES:-./playground/data/coco/train2017}" \
    --vision_tower "${TOWER:-openai/clip-vit-large-patch14}" \
    --mm_projector_type "${PROJECTOR_TYPE:-linear}" \
    --pretrain_mm_mlp_adapter "${PROJECTOR:-./checkpoints/llava-$MODEL_VERSION-pretrain/mm_projector.bin}" \
    --image_aspect_ratio "${ASPECT:-square}" \
    --group_by_modality_length "${GROUP:-False}" \
    --output_dir "${OUTPUT:-./checkpoints/llava-$MODEL_VERSION-finetune_lora}" \
    --per_device_train_batch_size "${BATCH:-16}" \
    --save_steps "${SAVE_STEPS:-50000}" \
    --learning_rate "${LR:-2e-5}" \
    "${LLAVA[@]}" "${COMMON[@]}" "$@"
