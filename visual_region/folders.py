"""What a rewritten checkpoint folder holds besides its weights, and where it may be written."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What belongs to the run that made a folder and not to the model.
_LEFT_BEHIND = {"config.json", "trainer_state.json", "training_args.bin", "README.md"}
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json")
_ROOM = 1 << 24


class OutputError(ValueError):
    """A folder that must not or cannot be written."""


def check_output(output: str | Path, sources: Sequence[str | Path], nbytes: int, overwrite: bool = False) -> Path:
    """The output folder, found to be free and to have room.

    Args:
        sources: folders that are read; the output must be none of them, nor above or below one.
        nbytes: bytes that will be written.

    Raises:
        OutputError: says which, and what to type instead.
    """
    output = Path(output)
    target = output.resolve()
    for source in sources:
        read = Path(source).resolve()
        if target == read or target in read.parents or read in target.parents:
            raise OutputError(f"--output {output} and {source}, which is read, lie in each other; give another folder")
    if output.is_file():
        raise OutputError(f"--output {output} is a file; give a folder")
    if output.is_dir() and any(output.iterdir()):
        if not (output / "config.json").is_file():
            raise OutputError(f"--output {output} holds other things than a checkpoint; give another folder")
        if not overwrite:
            raise OutputError(f"--output {output} holds a checkpoint already; --overwrite replaces it")
    place = target
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < nbytes + _ROOM:
        raise OutputError(
            f"--output {output} needs {nbytes / 1e9:.2f} GB and {place} has {free / 1e9:.2f} GB free; "
            "give a folder on another disk"
        )
    return output


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
