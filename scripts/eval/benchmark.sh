# Runs a benchmark: bash scripts/eval/benchmark.sh NAME CHECKPOINT [flags of the program that answers]. Sourced by NAME.sh.
# python -m llava.eval.suite.benchmark --help lists the environment variables that they read.
set -euo pipefail
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}."
: "${2:?usage: bash $0 CHECKPOINT [flags]}"
exec "${PYTHON:-python}" -m llava.eval.suite.benchmark "$@"
