#!/bin/bash
# The paper's whole evaluation: bash scripts/eval/all.sh CHECKPOINT [--require-all] [--only NAME ...] [flags of the runners]
# Runs every benchmark that has its data, and lists those without data. At the end it prints the row of the paper's table
# and writes it to playground/data/eval/results/NAME. If you run it again, it skips what is finished, as long as
# checkpoint, data, flags, variables and rule are the same.
set -euo pipefail
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}"
exec ${DRY_RUN:+echo} "${PYTHON:-python}" -m llava.eval.suite.all "$@"
