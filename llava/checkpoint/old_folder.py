"""What a checkpoint folder is, and whether it is whole: read from its files, before any weight is loaded."""

import json
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.checkpoint.folder import CheckpointError, Kind
from llava.checkpoint.weights import weight_files

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
NON_LORA = "non_lora_trainables.bin"
PROJECTOR = "mm_projector.bin"
_LAYER_KEY = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder.

    Attributes:
        config: its config.json, in our terms where it is transformers' own LLaVA.
        adapter: its adapter_config.json, for a LoRA.
        hf: a folder of transformers' own LLaVA, whose weights have other names.
    """

    path: Path
    kind: Kind
    config: dict[str, Any]
    adapter: dict[str, Any] | None = None
    hf: bool = False

    @property
    def adapter_weights(self) -> Path:
        return next(self.path / name for name in ADAPTER_WEIGHTS if (self.path / name).is_file())

    @property
    def weight_files(self) -> list[Path]:
        """The files with weights besides an adapter: a model's, or what was trained beside a LoRA or in stage 1."""
        if self.kind is Kind.FULL:
            return weight_files(self.path)
        file = self.path / (NON_LORA if self.kind is Kind.LORA else PROJECTOR)
        return [file] if file.is_file() else []

    @property
    def recorded_base(self) -> str | None:
        return (self.adapter or {}).get("base_model_name_or_path") or self.config.get("_name_or_path")


def local_folder(name: str | Path, cache_dir: str | None = None, download: bool = True) -> Path:
    """The folder of a checkpoint: a folder here, or what the hub holds under that id.

    Args:
        cache_dir: where hub files are kept; default: the hub's own cache.
        download: False takes a hub id's files only where they are in the cache already.

    Raises:
        CheckpointError: neither.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.bin", "*.model", "*.jinja"]
    try:
        return Path(
            snapshot_download(
                str(name),
                cache_dir=cache_dir,
                local_files_only=not download,
                allow_patterns=patterns,
                ignore_patterns=["training_args.bin"],
            )
        )
    except (HFValidationError, RepositoryNotFoundError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {name} does not exist: it is no folder here, and the hub gave nothing under that id "
            f"({str(error).splitlines()[0]})"
        ) from error


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Recognises a folder (or hub id) by its files and checks that it is whole.

    Raises:
        CheckpointError: no such folder, or one from an interrupted write.
        HFLlavaError: a LLaVA of transformers that our classes cannot express.
    """
    path = local_folder(path)
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
        from llava.checkpoint.hf_llava import config_from_hf, is_hf_llava

        if is_hf_llava(config):
            return Checkpoint(path, Kind.FULL, config_from_hf(config, str(path)), hf=True)
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
    try:
        files = weight_files(path)
    except (ValueError, KeyError) as error:
        raise _unfinished(path, f"its index of weights cannot be read ({error})") from error
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise _unfinished(path, f"its index names {', '.join(missing)}, which are missing")
    return files


def _check_weight_file(file: Path) -> None:
    if file.suffix != ".safetensors":
        with open(file, "rb") as handle:
            zipped = handle.read(2) == b"PK"
        # The archive's table of contents stands at its end. Files from before torch 1.6 are no archives.
        if (zipped and not zipfile.is_zipfile(file)) or not file.stat().st_size:
            raise _unfinished(file.parent, f"{file.name} ends too early")
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
