#!/bin/bash
# ScienceQA test: bash scripts/eval/sqa.sh CHECKPOINT [flags of model_vqa_science]
source "$(dirname "$0")/benchmark.sh" scienceqa "$@"
