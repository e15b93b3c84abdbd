"""scripts/venv.sh with a false Python that kills everything at one of its steps: the next run completes the install."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FALSE_PYTHON = """#!/bin/bash
# `python -m venv`, pip and ensurepip, as far as venv.sh uses them. In the step KILL_AT its process group is killed; a
# command with the words FAIL fails.
[[ -z "${FAIL:-}" || "$*" != *"$FAIL"* ]] || { echo "it broke" >&2; exit 1; }
step() {
    echo >> "$STEPS"
    [ "$(wc -l < "$STEPS")" != "${KILL_AT:-0}" ] || kill -KILL 0
}
add_pip() {
    [ ! -e "$site/pip.dist-info" ] || return 0
    echo half > "$site/pip"; step; echo whole > "$site/pip"; mkdir "$site/pip.dist-info"; step
    touch "$(dirname "$site")/../../bin/pip" "$site/pip.dist-info/INSTALLER"; step
}
site=$(dirname "$0")/../lib/python3.11/site-packages
case "$1 $2" in
"-m venv")
    mkdir -p "$3/bin" "$3/lib/python3.11/site-packages"; step
    touch "$3/pyvenv.cfg"; step
    cp "$0" "$3/bin/python"; step
    site=$3/lib/python3.11/site-packages; add_pip
    touch "$3/bin/activate"; step ;;
"-c import"*) [ -e "$site/pip.dist-info" ] ;;
"-m ensurepip") add_pip ;;
"-m pip")
    [ "$(cat "$site/pip" 2>/dev/null)" = whole ] || { echo "No module named pip" >&2; exit 1; }
    name=package$#
    echo "$name" >> "$STEPS.pip"
    sleep "${SLOW:-0}"
    [ ! -e "$site/$name.dist-info" ] || exit 0
    echo half > "$site/$name"; step
    mkdir "$site/$name.dist-info"; step
    echo whole > "$site/$name"; step
    touch "$site/$name.dist-info/INSTALLER"; step ;;
esac
"""
STEPS = 19


@pytest.fixture
def install(tmp_path):
    """Starts `source scripts/venv.sh` in a folder with requirements of its own."""
    (tmp_path / "playground").mkdir()
    for name in ("setup.py", "playground/requirements.txt"):
        (tmp_path / name).touch()
    (tmp_path / "constraints.txt").write_text("torch==1\n")
    python = tmp_path / "python3.11"
    python.write_text(FALSE_PYTHON)
    python.chmod(0o755)

    def begin(venv="v", steps="steps", flags="-ec", **environment):
        environment = {"VENV": venv, "PYTHON311": str(python), "STEPS": str(tmp_path / steps), **environment}
        command = ["bash", flags, f"source {ROOT}/scripts/venv.sh; status=$?; echo $PYTHON; exit $status"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**os.environ, **environment}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **pipes)

    return begin


def contents(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_killed_at_each_step_it_goes_on(install, tmp_path):
    whole = install("whole")
    assert whole.communicate()[0].endswith("whole/bin/python\n")
    steps = (tmp_path / "steps").read_text().count("\n")
    assert steps == STEPS
    for step in range(1, steps + 1):
        killed = install(f"v{step}", f"steps{step}", KILL_AT=str(step))
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        assert not (tmp_path / f"v{step}/installed").exists()
        again = install(f"v{step}", f"again{step}")
        errors = again.communicate()[1]
        assert (again.returncode, errors) == (0, ""), step
        assert contents(tmp_path / f"v{step}") == contents(tmp_path / "whole"), step
        third = install(f"v{step}", f"third{step}")
        third.communicate()
        assert not (tmp_path / f"third{step}").exists()


@pytest.mark.parametrize("words", ["-m venv", "torch==1", "[dev]", "--no-deps"])
@pytest.mark.parametrize("flags", ["-ec", "-c"])
def test_a_failed_step_is_not_finished(install, tmp_path, flags, words):
    """`-c` is as an interactive shell, which goes on after a failed command."""
    failed = install(flags=flags, FAIL=words)
    errors = failed.communicate()[1]
    assert (failed.returncode, errors) == (1, "it broke\n")
    assert not (tmp_path / "v/installed").exists()
    again = install(flags=flags)
    assert again.communicate() == ("installing into v\nv/bin/python\n", "")
    assert (tmp_path / "v/installed").exists()


@pytest.mark.parametrize("flags", ["-ec", "-c"])
def test_another_folder_is_refused(install, tmp_path, flags):
    (tmp_path / "setup.py").unlink()
    refused = install(flags=flags)
    errors = refused.communicate()[1]
    assert refused.returncode == 1
    assert errors.endswith(
        f"error: {tmp_path} is not the folder of the repository; cd to the folder that holds setup.py first\n"
    )
    assert not (tmp_path / "v").exists()


def test_a_folder_that_is_no_venv_is_refused_and_kept(install, tmp_path):
    (tmp_path / "v/photos").mkdir(parents=True)
    (tmp_path / "v/photos/1.png").write_text("mine")
    refused = install()
    errors = refused.communicate()[1]
    assert refused.returncode == 1
    assert errors == "error: VENV=v holds files and is not a virtual environment; give another folder\n"
    assert contents(tmp_path / "v") == {"photos/1.png": "mine"}


def test_two_at_a_time_install_once(install, tmp_path):
    first = install(SLOW="0.5")
    while not (tmp_path / "steps.pip").exists():
        time.sleep(0.01)
    second = install(steps="second")
    out, errors = second.communicate()
    first.communicate()
    assert (first.returncode, second.returncode, errors) == (0, 0, "")
    assert "waiting for another process that installs into v" in out
    assert not (tmp_path / "second").exists()
