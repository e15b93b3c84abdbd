# Runs a benchmark: bash scripts/eval/benchmark.sh NAME CHECKPOINT [flags of the program that answers]. Sourced by NAME.sh.
# python -m llava.eval.suite.benchmark --help lists the environment variables that they read.
set -euo pipefail
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}"
if [ -z "${2:-}" ]; then
    [ "${BASH_SOURCE[0]}" != "$0" ] && name="" || name=" NAME"
    echo "error: no checkpoint (usage: bash $0$name CHECKPOINT [flags])" >&2
    exit 2
fi
exec "${PYTHON:-python}" -m llava.eval.suite.benchmark "$@"
