#!/bin/bash
# Builds the documentation's pages into site/ (strict: a dead link is an error): bash scripts/docs.sh [mkdocs command]
# `bash scripts/docs.sh serve` shows them at http://127.0.0.1:8000 and builds them again after each change.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
if ! "$PYTHON" -c "import material, mkdocstrings" 2>/dev/null; then
    echo "error: the documentation needs mkdocs-material and mkdocstrings: pip install -e '.[docs]'" >&2
    exit 1
fi
# The theme prints an advertisement of another program otherwise.
export NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true
if [ $# -eq 0 ]; then set -- build; fi
"$PYTHON" -m mkdocs "$@"
if [ "$1" = build ]; then echo "The pages are in site/: open site/index.html"; fi
