#!/bin/bash
# GQA test-dev, balanced: bash scripts/eval/gqa.sh CHECKPOINT [flags of model_vqa_loader]
source "$(dirname "$0")/benchmark.sh" gqa "$@"
