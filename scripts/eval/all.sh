#!/bin/bash
# The paper's whole evaluation: bash scripts/eval/all.sh CHECKPOINT [--require-all] [--only NAME ...] [flags of the runners]
# Runs every benchmark that has its data (and says which have none), ends in the paper's table row, and writes it to
# playground/data/eval/results/NAME. Run again, it passes over what is finished, while the checkpoint is unchanged.
set -euo pipefail
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}."
exec ${DRY_RUN:+echo} ${PYTHON:-python} -m llava.eval.suite.all "$@"
