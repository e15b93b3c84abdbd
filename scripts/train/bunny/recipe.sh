#!/bin/bash
# Runs one stage of a published recipe of Bunny: this folder's scripts with the values that Bunny's tutorials change.
#
#   bash scripts/train/bunny/recipe.sh MODEL pretrain|recipe1|recipe2
#
#   MODEL         the published model         final: average of the merged recipes 1 and 2
#   llama3-8b     Bunny-Llama-3-8B-V (v1.0)   0.5  0.5
#   phi-3         Bunny-v1.0-4B, Phi-3-mini   0.3  0.7
#   llama3-8b-s2  Bunny-v1.1-Llama-3-8B-V     0.42 0.58
#   phi-3-s2      Bunny-v1.1-4B, Phi-3-mini   0.3  0.7
#
# "Activating Distributed Visual Region within LLMs" trains recipe 1 of llama3-8b alone; its Bunny is not the published one.
# Recipe 2 trains the vision tower too. Merge each recipe with scripts/merge_lora_weights.py, then average both with
# scripts/average_weights.py. TUNE_LAYERS selects the decoder layers of each recipe. Environment variables override these
# values; the stage's own script lists them all. DRY_RUN=1 prints the command.
set -euo pipefail
here="$(dirname "$0")"
usage() {
    sed -n '2,16s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
[ $# -ge 2 ] || usage
model="$1" stage="$2"
shift 2

default() { # NAME=VALUE ...: sets the variables that are not set or empty; an empty DEEPSPEED or PROJECTOR has a meaning
    local pair name
    for pair in "$@"; do
        name="${pair%%=*}"
        case "$name" in
        DEEPSPEED | PROJECTOR) [ -n "${!name+set}" ] || export "${pair?}" ;;
        *) [ -n "${!name:-}" ] || export "${pair?}" ;;
        esac
    done
}

data=./data/finetune
long=(BATCH=4 ACCUMULATION=4 MAX_LENGTH=4096)
case "$model $stage" in
"llama3-8b pretrain" | "phi-3 pretrain") ;;
"llama3-8b recipe1") ;;
"llama3-8b recipe2") default LR=1e-4 PROJECTOR_LR=1e-5 DATA=$data/bunny_llava_1.4m.json ;;
"phi-3 recipe1") default "${long[@]}" ;;
"phi-3 recipe2") default "${long[@]}" DATA=$data/bunny_llava_1.4m.json ;;
"llama3-8b-s2 pretrain") default USE_S2=True DEEPSPEED=./scripts/zero3.json ;;
"phi-3-s2 pretrain") default USE_S2=True ;;
"llama3-8b-s2 recipe1" | "llama3-8b-s2 recipe2")
    default USE_S2=True "${long[@]}" LORA_R=256 LR=1e-4 PROJECTOR_LR=1e-5
    ;;
"phi-3-s2 recipe1" | "phi-3-s2 recipe2") default USE_S2=True "${long[@]}" ;;
*) usage ;;
esac
case "$model $stage" in
*-s2" recipe1") default DATA=$data/bunny_allava_1.3m.json ;;
*-s2" recipe2") default DATA=$data/bunny_llava_allava_2m.json ;;
esac
case "$model" in
llama3-8b*) default MODEL_TYPE=llama3-8b MODEL=meta-llama/Meta-Llama-3-8B-Instruct template=llama ;;
phi-3*) default MODEL_TYPE=phi-3 MODEL=microsoft/Phi-3-mini-4k-instruct template=phi3 ;;
esac
projector="./checkpoints-pretrain/bunny-$model-pretrain"
case "$stage" in
pretrain)
    default LR=1e-3 "OUTPUT=$projector"
    exec bash "$here/pretrain.sh" "$@"
    ;;
recipe2) default UNFREEZE_TOWER=True ;;
esac
default VERSION="$template" "PROJECTOR=$projector/mm_projector.bin"
default "OUTPUT=./checkpoints-$model/bunny-lora-$model-$stage"
exec bash "$here/finetune_lora.sh" "$@"
