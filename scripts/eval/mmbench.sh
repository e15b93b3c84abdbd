#!/bin/bash
# MMBench dev: bash scripts/eval/mmbench.sh CHECKPOINT [flags of model_vqa_mmbench]
# It also writes the sheet for MMBench's server.
source "$(dirname "$0")/benchmark.sh" mmbench "$@"
