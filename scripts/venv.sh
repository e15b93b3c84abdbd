# Sourced by other scripts. Creates .venv in the repository once, with everything that the quickstart and the tests need,
# and sets PYTHON. VENV: another folder. A finished venv is recognised by the requirements from which it was made. If it
# was interrupted or killed, it continues when you run it again.
VENV=${VENV:-.venv}
PYTHON=$VENV/bin/python
# An interactive shell that sources this goes on after a failed command, so each step ends the rest itself.
wanted=$(set -o pipefail; cat setup.py constraints.txt playground/requirements.txt | sha256sum) || {
    echo "error: $PWD is not the folder of the repository; cd to the folder that holds setup.py first" >&2
    return 1
}

installed() { [ "$(cat "$VENV/installed" 2>/dev/null)" = "$wanted" ]; }

# remove_half [TEST]: removes the metadata of packages that a kill left in part, as pip would take them for whole ones. Their
# last file is INSTALLER.
remove_half() {
    find "$VENV/lib" -maxdepth 3 -name '*.dist-info' "$@" ! -exec test -e '{}/INSTALLER' ';' -exec rm -r '{}' +
}

# Nothing of the user is deleted: a folder that holds files has to be a virtual environment, or one that a kill left half
# made, which `python -m venv` completes. bin/activate is the last file that it writes.
make_venv() {
    [ ! -x "$PYTHON" ] || { [ -e "$VENV/pyvenv.cfg" ] && [ ! -e "$VENV/bin/activate" ]; } || return 0
    if [ ! -e "$VENV/pyvenv.cfg" ] && [ -n "$(find "$VENV/" ! -type d ! -name lib64 -print -quit)" ]; then
        echo "error: VENV=$VENV holds files and is not a virtual environment; give another folder" >&2
        return 1
    fi
    [ ! -d "$VENV/lib" ] || remove_half || return 1
    "${PYTHON311:-python3.11}" -m venv "$VENV"
}

# Most modules are never imported, so Python compiles each one when it first imports it; pip would compile all of them.
# Where Python may not write what it compiled, pip does it.
pip_install() {
    "$PYTHON" -m pip install --quiet --disable-pip-version-check $([ -n "${PYTHONDONTWRITEBYTECODE:-}" ] || echo --no-compile) "$@"
}

# In a subshell, which holds a lock on the folder: a second process waits for the first.
install_all() (
    # Where there is no flock, or the file system has no locks, nothing is locked.
    flock -n -E 75 9 2>/dev/null || [ $? != 75 ] || { echo "waiting for another process that installs into $VENV"; flock 9; }
    if installed; then exit; fi
    echo "installing into $VENV"
    make_venv || exit 1
    # A venv without pip, or with a part of it.
    "$PYTHON" -c 'import importlib.metadata as m; assert m.version("pip")' 2>/dev/null ||
        "$PYTHON" -m ensurepip --default-pip || exit 1
    [ ! -e "$VENV/installing" ] || remove_half -newer "$VENV/installing" || exit 1
    echo "$wanted" > "$VENV/installing" || exit 1
    # torch is installed first and separately: together with the rest, pip may choose another build of it. PyPI's build for
    # Linux includes CUDA; PIP_EXTRA_INDEX_URL with the address of the builds for CPUs makes pip take one of those.
    pip_install "$(grep '^torch==' constraints.txt)" || exit 1
    pip_install -c constraints.txt -e '.[dev]' || exit 1
    pip_install --no-deps -r playground/requirements.txt || exit 1
    mv "$VENV/installing" "$VENV/installed"
) 9<"$VENV"

if ! installed; then
    mkdir -p "$VENV"
    install_all
    installed || return 1
fi
export PYTHON
