"""What a rewritten checkpoint folder holds besides its weights."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What belongs to the run that made a folder and not to the model.
_LEFT_BEHIND = {"config.json", "trainer_state.json", "training_args.bin", "README.md"}
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json")


def copy_side_files(source: Path, target: Path, leave: Sequence[str] = ()) -> None:
    """Copies tokenizer, generation config and the like: every file that is neither weights nor of a training run.

    Args:
        leave: further names to leave out.
    """
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name not in {*_LEFT_BEHIND, *leave} and not file.name.endswith(_WEIGHTS):
            shutil.copyfile(file, target / file.name)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it stands."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def write_config(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes config.json, which comes last: the sign that a folder is whole."""
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def family_at(flag: str, folder: str | Path, config: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """`family_config` of a folder, or of the config that it has with its base.

    Raises:
        UnknownFamilyError: also says which flag named the folder.
    """
    from llava.families import UnknownFamilyError
    from llava.model.builder import family_config

    try:
        return family_config(folder if config is None else config)
    except UnknownFamilyError as error:
        raise UnknownFamilyError(f"{flag} {folder}: {error}") from error
