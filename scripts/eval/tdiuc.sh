#!/bin/bash
# TDIUC validation: bash scripts/eval/tdiuc.sh CHECKPOINT [flags of model_vqa_loader]
# python -m llava.eval.prepare tdiuc --help describes how to use only a sample of its questions.
source "$(dirname "$0")/benchmark.sh" tdiuc "$@"
