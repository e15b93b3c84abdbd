#!/bin/bash
# MMBench dev, with the sheet for MMBench's server: bash scripts/eval/mmbench.sh CHECKPOINT [flags of model_vqa_mmbench]
source "$(dirname "$0")/benchmark.sh" mmbench "$@"
