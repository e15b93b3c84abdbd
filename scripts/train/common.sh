# Sourced by the training scripts: how a command is launched.
# GPUS: processes on this machine (default: the visible GPUs). One process runs as plain python, more with torchrun.
# DEEPSPEED: a DeepSpeed config to pass on (default: none).
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}."

launch() {
    local gpus="${GPUS:-$( (nvidia-smi -L 2>/dev/null || true) | wc -l)}"
    local command=("${PYTHON:-python}")
    if [ "$gpus" -gt 1 ]; then
        command+=(-m torch.distributed.run --standalone --nproc_per_node "$gpus")
    fi
    command+=("$@" ${DEEPSPEED:+--deepspeed "$DEEPSPEED"})
    if [ -n "${DRY_RUN:-}" ]; then
        printf '%q ' "${command[@]}"
        echo
    else
        "${command[@]}"
    fi
}
