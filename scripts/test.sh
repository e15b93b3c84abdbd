#!/bin/bash
# The test command: installs what it needs into .venv, checks format and lint, runs the tests.
# bash scripts/test.sh [pytest arguments]; two workers, or as many as -n says (-n 0: in this process, as a debugger needs).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m pytest -n 2 "$@"
