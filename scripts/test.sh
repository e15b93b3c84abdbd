#!/bin/bash
# The test command: installs what it needs into .venv, checks lint and format, runs the tests.
# Usage: bash scripts/test.sh [pytest arguments]. It uses two workers; -n sets another number (-n 0 runs the tests in this
# process, which a debugger needs).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m pytest -n 2 "$@"
