#!/bin/bash
# TDIUC validation; for a sample see python -m llava.eval.prepare tdiuc --help: bash scripts/eval/tdiuc.sh CHECKPOINT [flags of model_vqa_loader]
source "$(dirname "$0")/benchmark.sh" tdiuc "$@"
