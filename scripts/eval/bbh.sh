#!/bin/bash
# BIG-bench-hard, zero-shot: bash scripts/eval/bbh.sh CHECKPOINT [flags of model_vqa_loader]
source "$(dirname "$0")/benchmark.sh" bbh "$@"
