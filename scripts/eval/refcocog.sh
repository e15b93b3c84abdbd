#!/bin/bash
# RefCOCOg test (UMD): bash scripts/eval/refcocog.sh CHECKPOINT [flags of model_vqa_loader]
source "$(dirname "$0")/benchmark.sh" refcocog "$@"
