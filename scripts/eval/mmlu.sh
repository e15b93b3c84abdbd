#!/bin/bash
# MMLU, five examples per question: bash scripts/eval/mmlu.sh CHECKPOINT [flags of model_mmlu]
source "$(dirname "$0")/benchmark.sh" mmlu "$@"
