# Sourced by the scripts of the benchmarks: NAME CHECKPOINT [flags of the program that answers].
# The environment variables that they read: python -m llava.eval.suite.benchmark --help
set -euo pipefail
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}."
: "${2:?usage: bash $0 CHECKPOINT [flags]}"
exec "${PYTHON:-python}" -m llava.eval.suite.benchmark "$@"
