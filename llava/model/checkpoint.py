"""What a checkpoint folder is, and whether it is whole: read from its files, before any weight is loaded."""

import json
import re
import struct
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
NON_LORA = "non_lora_trainables.bin"
PROJECTOR = "mm_projector.bin"
_FULL_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_LAYER_KEY = re.compile(r"\.layers\.(\d+)\.")


class CheckpointError(ValueError):
    """A folder that cannot be loaded; the message says what is missing and what to do."""


class Kind(Enum):
    FULL = "full"
    LORA = "LoRA"
    PROJECTOR = "projector"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder. `config` is its config.json; `adapter` its adapter_config.json, for a LoRA."""

    path: Path
    kind: Kind
    config: dict[str, Any]
    adapter: dict[str, Any] | None = None

    @property
    def adapter_weights(self) -> Path:
        return next(self.path / name for name in ADAPTER_WEIGHTS if (self.path / name).is_file())

    @property
    def recorded_base(self) -> str | None:
        return (self.adapter or {}).get("base_model_name_or_path") or self.config.get("_name_or_path")


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Recognises a local folder by its files and checks that it is whole.

    Raises:
        CheckpointError: no such folder, or one from an interrupted write.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {path} does not exist; give a folder, or a base model for a LoRA")
    if path.name.endswith(".partial"):
        raise CheckpointError(f"checkpoint {path} is what an interrupted write left behind; use one without .partial")
    if (path / ADAPTER_CONFIG).is_file():
        adapter = _read_json(path / ADAPTER_CONFIG)
        if not any((path / name).is_file() for name in ADAPTER_WEIGHTS):
            raise _unfinished(path, f"{ADAPTER_CONFIG} is there, but none of {', '.join(ADAPTER_WEIGHTS)}")
        config = _read_json(path / "config.json") if (path / "config.json").is_file() else {}
        checkpoint = Checkpoint(path, Kind.LORA, config, adapter)
        _check_weight_file(checkpoint.adapter_weights)
        if config.get("mm_vision_tower") and not (path / NON_LORA).is_file():
            raise _unfinished(path, f"a LLaVA LoRA needs {NON_LORA} (it holds the trained projector)")
        return checkpoint
    if not (path / "config.json").is_file():
        found = ", ".join(sorted(item.name for item in path.iterdir())[:8]) or "nothing"
        raise _unfinished(path, f"no config.json and no {ADAPTER_CONFIG}; it holds {found}")
    config = _read_json(path / "config.json")
    files = _full_weight_files(path)
    if files:
        for file in files:
            _check_weight_file(file)
        return Checkpoint(path, Kind.FULL, config)
    if (path / PROJECTOR).is_file():
        return Checkpoint(path, Kind.PROJECTOR, config)
    raise _unfinished(path, f"config.json is there, but neither weights nor {PROJECTOR}")


def adapter_layers(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The decoder layers that a LoRA's weights name, from the file's header alone where it is safetensors."""
    weights = checkpoint.adapter_weights
    if weights.suffix == ".safetensors":
        names = list(_safetensors_header(weights))
    else:
        import torch

        names = list(torch.load(weights, map_location="meta", weights_only=True))
    return tuple(sorted({int(match.group(1)) for name in names if (match := _LAYER_KEY.search(name))}))


def check_adapter_fits(checkpoint: Checkpoint, base_config: dict[str, Any], base: str | Path) -> None:
    """A LoRA must have been trained on as many layers, in the same places, as its base now has.

    PEFT drops weights of layers that do not exist without a word, and adapts the wrong ones after a removal.
    """
    have = base_config["num_hidden_layers"]
    trained_on = checkpoint.config.get("num_hidden_layers", have)
    layers = adapter_layers(checkpoint)
    kept = (base_config.get("visual_region") or {}).get("kept_layers")
    trained_kept = (checkpoint.config.get("visual_region") or {}).get("kept_layers")
    if trained_on != have or (layers and layers[-1] >= have) or kept != trained_kept:
        pruned = " (some were removed from it)" if kept and kept != trained_kept else ""
        raise CheckpointError(
            f"the LoRA {checkpoint.path} was trained on a model of {trained_on} layers (it adapts layers "
            f"{', '.join(map(str, layers))}), but its base {base} has {have}{pruned}; load it on the base that it was "
            "trained on, merge it there, and remove layers afterwards"
        )


def _full_weight_files(path: Path) -> list[Path]:
    for name in _INDEXES:
        if (path / name).is_file():
            shards = sorted(set(_read_json(path / name)["weight_map"].values()))
            missing = [shard for shard in shards if not (path / shard).is_file()]
            if missing:
                raise _unfinished(path, f"{name} names {', '.join(missing)}, which are missing")
            return [path / shard for shard in shards]
    return [path / name for name in _FULL_WEIGHTS if (path / name).is_file()][:1]


def _check_weight_file(file: Path) -> None:
    if file.suffix != ".safetensors":
        return
    header = _safetensors_header(file)
    with open(file, "rb") as handle:
        start = 8 + struct.unpack("<Q", handle.read(8))[0]
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if file.stat().st_size != start + end:
        raise _unfinished(file.parent, f"{file.name} should be {start + end} bytes and is {file.stat().st_size}")


def _safetensors_header(file: Path) -> dict[str, Any]:
    try:
        with open(file, "rb") as handle:
            header = json.loads(handle.read(struct.unpack("<Q", handle.read(8))[0]))
    except (struct.error, ValueError, UnicodeDecodeError, MemoryError, OverflowError) as error:
        raise _unfinished(file.parent, f"{file.name} has no readable header") from error
    header.pop("__metadata__", None)
    return header


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _unfinished(path.parent, f"{path.name} is not valid JSON ({error})") from error


def _unfinished(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path} is not whole: {why}. It looks like an interrupted write or copy; "
        "use an earlier checkpoint or copy it again"
    )
