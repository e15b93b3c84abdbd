#!/bin/bash
# easy-VQA: bash scripts/eval/easy_vqa.sh CHECKPOINT [flags of model_vqa_loader]
source "$(dirname "$0")/benchmark.sh" easy_vqa "$@"
