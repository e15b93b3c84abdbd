#!/bin/bash
# Compares checkpoints: bash scripts/eval/compare.sh [NAME=]RESULTS [NAME=]RESULTS ... [--reference NAME] [--output FOLDER]
# RESULTS: a folder that all.sh wrote in playground/data/eval/results/. The first one is the reference, usually the model
# that was tuned in all layers.
set -euo pipefail
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}"
exec ${DRY_RUN:+echo} "${PYTHON:-python}" -m llava.eval.suite.compare "$@"
