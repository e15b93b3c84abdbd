#!/bin/bash
# DocVQA validation: bash scripts/eval/docvqa.sh CHECKPOINT [flags of model_vqa_loader]
source "$(dirname "$0")/benchmark.sh" docvqa "$@"
