# Sourced by the scripts of the benchmarks, with the arguments NAME CHECKPOINT [flags of the program that answers].
# python -m llava.eval.suite.benchmark --help lists the environment variables that they read.
set -euo pipefail
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}."
: "${2:?usage: bash $0 CHECKPOINT [flags]}"
exec "${PYTHON:-python}" -m llava.eval.suite.benchmark "$@"
