# Sourced: makes .venv in the repository with everything that quickstart and tests need, once; sets PYTHON.
# VENV: another place. A finished venv is recognised by the versions it was made from.
VENV=${VENV:-.venv}
if [ ! -x "$VENV/bin/python" ]; then
    "${PYTHON311:-python3.11}" -m venv "$VENV"
fi
PYTHON=$VENV/bin/python
wanted=$(cat setup.py constraints.txt playground/requirements.txt | sha256sum)
if [ "$(cat "$VENV/installed" 2>/dev/null)" != "$wanted" ]; then
    echo "installing into $VENV"
    # torch first and by itself: left to be resolved with the rest, pip may choose a build with GBs of CUDA.
    "$PYTHON" -m pip install --quiet --disable-pip-version-check "$(grep '^torch==' constraints.txt)"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps -r playground/requirements.txt
    echo "$wanted" > "$VENV/installed"
fi
export PYTHON
