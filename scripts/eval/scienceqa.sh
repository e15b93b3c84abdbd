#!/bin/bash
# ScienceQA test (Bunny's name for sqa.sh): bash scripts/eval/scienceqa.sh CHECKPOINT [flags of model_vqa_science]
source "$(dirname "$0")/benchmark.sh" scienceqa "$@"
