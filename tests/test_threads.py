"""How long OpenMP's threads spin: shortly, unless the user says how, or torch is loaded and has read the setting."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.mark.parametrize(
    ("before", "given", "found"),
    [
        ("", {}, "10000"),
        ("", {"OMP_WAIT_POLICY": "ACTIVE"}, None),
        ("", {"GOMP_SPINCOUNT": "1000"}, "1000"),
        ("", {"KMP_BLOCKTIME": "1"}, None),
        ("import sys; sys.modules['torch'] = sys; ", {}, None),
    ],
)
def test_threads_spin_shortly(before, given, found):
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    for package in ("llava", "bunny", "visual_region.__main__"):
        code = f"{before}import os, {package}; print(os.environ.get('GOMP_SPINCOUNT'))"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | given, cwd=REPOSITORY, capture_output=True, text=True
        )
        assert done.stdout == f"{found}\n", done.stderr


def test_openmp_has_read_it():
    """OpenMP prints its settings when torch loads it."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    code = "import llava, torch; torch.ones(9)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"OMP_DISPLAY_ENV": "verbose"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert "GOMP_SPINCOUNT = '10000'" in done.stderr
