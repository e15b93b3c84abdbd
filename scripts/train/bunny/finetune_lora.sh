#!/bin/bash
# Bunny's stage 2 with LoRA in the decoder layers of TUNE_LAYERS.
# Upstream: script/train/finetune_lora.sh; its values for Phi-2 are the defaults.
# TUNE_LAYERS: the decoder layers to tune. The paper's choice is sparse-uniform:25%. Default: all layers, as upstream.
# Each value can be set by an environment variable; further flags are passed on to the trainer. ../common.sh describes
# launching, DeepSpeed and DRY_RUN.
set -euo pipefail
ACCUMULATION=${ACCUMULATION:-2}
source "$(dirname "$0")/../common.sh"
MODEL_TYPE=${MODEL_TYPE:-phi-2}
DEEPSPEED=${DEEPSPEED-auto}
# PROJECTOR= trains a Bunny further, whose projector is trained already.
PROJECTOR=${PROJECTOR-./checkpoints-pretrain/bunny-$MODEL_TYPE-pretrain/mm_projector.bin}

launch bunny/train/train.py \
    --lora_enable True --lora_r "${LORA_R:-128}" --lora_alpha "${LORA_ALPHA:-256}" \
    --mm_projector_lr "${PROJECTOR_LR:-2e-5}" \
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
    --output_dir "${OUTPUT:-./checkpoints-$MODEL_TYPE/bunny-lora-$MODEL_TYPE}" \
    --per_device_train_batch_size "${BATCH:-8}" \
    --save_steps "${SAVE_STEPS:-500}" \
    --learning_rate "${LR:-2e-4}" \
    "${COMMON[@]}" "$@"
