#!/bin/bash
# Checkpoints side by side: bash scripts/eval/compare.sh [NAME=]RESULTS [NAME=]RESULTS ... [--reference NAME] [--output FOLDER]
# RESULTS: what all.sh left in playground/data/eval/results/. The first is the reference, as a rule the all-layers model.
set -euo pipefail
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}."
exec ${DRY_RUN:+echo} ${PYTHON:-python} -m llava.eval.suite.compare "$@"
