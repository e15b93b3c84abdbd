"""The GPU and the packages of this machine, without importing torch.

`python scripts/bench/machine.py` ends with an error if a package is missing or older than setup.py asks for.
scripts/bench/gpu.sh runs it first: with such a package, rows would fail one after another.
"""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from llava.flags import run_program

_ROOT = Path(__file__).parents[2]


def gpu() -> tuple[str, str]:
    """The GPU's name with its memory, and its driver, asked without taking any of its memory."""
    if not shutil.which("nvidia-smi"):
        return "unknown (there is no nvidia-smi)", "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version,name,memory.total", "--format=csv,noheader"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    driver, comma, hardware = lines[0].partition(", ") if lines else ("", "", "")
    return (hardware, driver) if comma else ("unknown (nvidia-smi shows no GPU)", "unknown")


def versions(packages: Iterable[str]) -> dict[str, str]:
    return {name: _version(name) or "not installed" for name in packages}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_packages() -> None:
    """Raises `ValueError` if a package that setup.py gives a lowest version is missing or older."""
    setup = ast.walk(ast.parse((_ROOT / "setup.py").read_text(encoding="utf-8")))
    required = next(node.value for node in setup if isinstance(node, ast.keyword) and node.arg == "install_requires")
    lacking = []
    for requirement in ast.literal_eval(required):
        name, bound, lowest = requirement.partition(">=")
        if bound and _numbers(found := _version(name) or "0") < _numbers(lowest):
            lacking.append(f"{requirement} ({'not installed' if found == '0' else f'{found} is installed'})")
    if lacking:
        raise ValueError(
            f"this needs {', '.join(lacking)}: install them, or set WHEELS to a folder with their wheels, as the "
            "header of scripts/bench/gpu.sh says"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (2, 11, 0) of 2.11.0+cu130."""
    return tuple(map(int, re.match(r"\d+(\.\d+)*", version)[0].split(".")))


if __name__ == "__main__":
    run_program(check_packages, interrupted="")
