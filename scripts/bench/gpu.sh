#!/bin/bash
# All figures of one GPU in at most 10 minutes: OUT=FOLDER bash scripts/bench/gpu.sh [flags of scripts/bench/gpu.py]
# FOLDER gets gpu.md (one table), gpu.json and the journal gpu.md.journal. The same command again measures what is missing,
# and with --retry what failed; on another machine too, with the same GPU and packages. On a machine that empties FOLDER,
# first copy the last run's gpu.md.journal into it. BUDGET: seconds for everything (default: 560).
#
# It needs torch with CUDA and this repository's packages, and no network. Liger's kernels and 4 bits are optional:
# pip install liger-kernel bitsandbytes. For a machine without a network, download the wheels elsewhere and set WHEELS to
# their folder; they are used for this run alone. The four of them take 56 MiB:
#   python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_24_x86_64 \
#     -d .whl transformers==5.23.0 peft==0.21.2 liger-kernel==0.8.5 bitsandbytes==0.50.2
# A small run on a CPU: OUT=FOLDER bash scripts/bench/gpu.sh --preset tiny --device cpu --dtype fp32 --rank 4
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -n "${OUT:-}" ] || { echo "error: OUT is not set; type OUT=FOLDER bash scripts/bench/gpu.sh" >&2; exit 2; }
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ ! -x .venv/bin/python ] || PYTHON=.venv/bin/python
fi
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
run=("$PYTHON" scripts/bench/gpu.py --output "$OUT" --budget "${BUDGET:-560}" "$@")
check=("$PYTHON" scripts/bench/machine.py)
if [ -z "${WHEELS:-}" ]; then
    "${check[@]}"
    exec "${run[@]}"
fi
SITE=$(mktemp -d)
trap 'rm -rf "$SITE"' EXIT
"$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$SITE" "$WHEELS"/*.whl
export PYTHONPATH=$SITE${PYTHONPATH:+:$PYTHONPATH}
"${check[@]}"
"${run[@]}"
