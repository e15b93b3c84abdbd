#!/bin/bash
# TDIUC validation: bash scripts/eval/tdiuc.sh CHECKPOINT [flags of model_vqa_loader]
# It has 538,868 questions. `python -m llava.eval.prepare tdiuc --raw DIR --sample 20000` draws a sample of them, and
# QUESTIONS=questions.sample-20000 uses it.
source "$(dirname "$0")/benchmark.sh" tdiuc "$@"
