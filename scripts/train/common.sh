# Sourced by the training scripts: flags that all recipes share, and the function that launches a command.
#
# GPUS: number of processes on this machine (default: the number of visible GPUs). One process runs as plain python,
# several run with torchrun.
# NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT: for several machines. Start the same script on each; NODE_RANK counts from 0.
# DEEPSPEED: a DeepSpeed config (the default of full tuning and of stage 1 is upstream's), or auto (the default of LoRA):
# plain DDP if a step fits a device, else ZeRO-2, else ZeRO-3. DEEPSPEED= runs without it, as plain DDP.
# REPORT_TO: upstream's scripts report to wandb; here the default is none.
# ATTENTION: auto (flash attention if it is installed and supported), flash_attention_2, sdpa, eager.
# KERNELS: auto (liger on a GPU where liger-kernel is installed; cpu on a CPU), none, liger, cpu, compile (torch.compile).
# CHECKPOINTING: auto (recompute only as many layers as the device's memory asks for), True (upstream's), False.
# DRY_RUN=1 prints the whole command and runs nothing.
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}"

# tcsh puts the user's Unix group into GROUP. A group whose name is not known is a number.
if [[ "${GROUP:-}" =~ [^0-9] && " $(id -Gn 2>/dev/null) " == *" $GROUP "* ]]; then
    echo "note: GROUP=$GROUP is your Unix group and is ignored; GROUP=True or False sets --group_by_modality_length" >&2
    unset GROUP
fi

COMMON=(
    --bf16 "${BF16:-True}"
    --num_train_epochs "${EPOCHS:-1}"
    --max_steps "${STEPS:--1}"
    --per_device_eval_batch_size "${EVAL_BATCH:-4}"
    --gradient_accumulation_steps "${ACCUMULATION:-1}"
    --evaluation_strategy "${EVALUATE:-no}"
    --save_strategy "${SAVE:-steps}"
    --save_total_limit "${SAVE_LIMIT:-1}"
    --weight_decay "${WEIGHT_DECAY:-0.}"
    --warmup_ratio "${WARMUP:-0.03}"
    --lr_scheduler_type "${SCHEDULER:-cosine}"
    --logging_steps "${LOGGING_STEPS:-1}"
    --tf32 "${TF32:-True}"
    --model_max_length "${MAX_LENGTH:-2048}"
    --gradient_checkpointing "${CHECKPOINTING:-auto}"
    --kernels "${KERNELS:-auto}"
    --dataloader_num_workers "${WORKERS:-4}"
    --lazy_preprocess True
    --report_to "${REPORT_TO:-none}"
    ${ATTENTION:+--attn_implementation "$ATTENTION"}
    ${EVAL_DATA:+--eval_data_path "$EVAL_DATA"}
)
# Flags of LLaVA that Bunny's trainer does not need.
LLAVA=(
    --mm_vision_select_layer "${SELECT_LAYER:--2}"
    --mm_use_im_start_end False
    --mm_use_im_patch_token False
)

visible_gpus() {
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        # nvidia-smi lists the others too. "-1" hides all.
        tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c '^[^-]' || true
    else
        # Without the lines of MIG's parts.
        nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true
    fi
}

launch() {
    local gpus="${GPUS:-$(visible_gpus)}"
    local nodes="${NNODES:-1}"
    if ! [[ "$gpus" =~ ^[0-9]+$ && "$nodes" =~ ^[1-9][0-9]*$ ]]; then
        echo "error: GPUS=$gpus, NNODES=$nodes: give numbers; CUDA_VISIBLE_DEVICES=0,1 chooses GPUs" >&2
        exit 2
    fi
    if [ "$nodes" -gt 1 ] && { [ -z "${NODE_RANK:-}" ] || [ -z "${MASTER_ADDR:-}" ]; }; then
        echo "error: NNODES=$nodes needs NODE_RANK (0 on the first machine) and MASTER_ADDR (its address)" >&2
        exit 2
    fi
    if [ "$(visible_gpus)" -eq 0 ]; then
        # glibc keeps memory that was freed, as each step takes as much again, and fresh pages cost time.
        export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_-33554432}"
        export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_-17179869184}"
        export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_-536870912}"
    fi
    local command=("${PYTHON:-python}")
    if [ "$nodes" -gt 1 ]; then
        command+=(-m llava.train.launch --nnodes "$nodes" --nproc_per_node "$((gpus > 0 ? gpus : 1))"
            --node_rank "${NODE_RANK:?NNODES=$nodes needs NODE_RANK, 0 on the first machine}"
            --master_addr "${MASTER_ADDR:?NNODES=$nodes needs MASTER_ADDR, the address of the first machine}"
            --master_port "${MASTER_PORT:-29500}")
    elif [ "$gpus" -gt 1 ]; then
        command+=(-m llava.train.launch --standalone --nproc_per_node "$gpus")
    fi
    # In front of the user's own flags: the last of two equal flags counts.
    command+=("$1")
    if [ -n "${DEEPSPEED:-}" ]; then
        command+=(--deepspeed "$DEEPSPEED")
    fi
    command+=("${@:2}")
    if [ -n "${DRY_RUN:-}" ]; then
        printf '%q ' "${command[@]}"
        echo
    else
        "${command[@]}"
    fi
}
