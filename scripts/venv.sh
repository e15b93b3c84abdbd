# Sourced by other scripts. Creates .venv in the repository once, with everything that the quickstart and the tests need,
# and sets PYTHON. VENV: another folder. A finished venv is recognised by the requirements from which it was made.
VENV=${VENV:-.venv}
if [ ! -x "$VENV/bin/python" ]; then
    "${PYTHON311:-python3.11}" -m venv "$VENV"
fi
PYTHON=$VENV/bin/python
wanted=$(cat setup.py constraints.txt playground/requirements.txt | sha256sum)
if [ "$(cat "$VENV/installed" 2>/dev/null)" != "$wanted" ]; then
    echo "installing into $VENV"
    # torch is installed first and separately. Together with the rest, pip may choose a build with gigabytes of CUDA.
    "$PYTHON" -m pip install --quiet --disable-pip-version-check "$(grep '^torch==' constraints.txt)"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps -r playground/requirements.txt
    echo "$wanted" > "$VENV/installed"
fi
export PYTHON
