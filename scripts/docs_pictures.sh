#!/bin/bash
# Makes the pictures of the documentation again: bash scripts/docs_pictures.sh
# The report's picture is that of a finished quickstart (OUT, default checkpoints/quickstart); without one it stays.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=${OUT:-checkpoints/quickstart}
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p docs/pictures
"$PYTHON" -m visual_region select sparse-uniform:8 lower:8 lower-middle:8 upper-middle:8 top:8 hybrid:8 random:8@0 \
    --num-layers 32 --picture docs/pictures/selections.png
if [ -e "$OUT/report.png" ]; then cp "$OUT/report.png" docs/pictures/quickstart.png; fi
echo "The pictures are in docs/pictures"
