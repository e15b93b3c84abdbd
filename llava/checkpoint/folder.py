"""Opening a checkpoint: `open_checkpoint` makes every check once, before any weight is loaded.

The kind of a checkpoint follows from its files and its config, not from its name.
"""

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import list_repo_files, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import httpx

from llava.checkpoint.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, NON_LORA, Adapter
from llava.checkpoint.hf_llava import config_from_hf, is_hf_llava
from llava.checkpoint.identity import base_difference
from llava.checkpoint.older_config import without_older_fields
from llava.checkpoint.opened import Checkpoint, CheckpointError, Kind
from llava.checkpoint.record import LayerRecord
from llava.checkpoint.safe import TensorFileError, check_pickles
from llava.checkpoint.tensors import Tensors, weight_files
from llava.families import ModelFamily, UnknownFamilyError, family_of
from llava.names import some
from llava.tiling import TilingError, check_settings

PROJECTOR = "mm_projector.bin"
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_SAFETENSORS = re.compile(r"model\.safetensors(\.index\.json)?")
_WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads")


def open_checkpoint(
    path: str | Path,
    base: "str | Path | Checkpoint | None" = None,
    *,
    package: str | None = None,
    flag: str = "",
    weights: bool = True,
    with_base: bool = True,
    cache_dir: str | None = None,
) -> Checkpoint:
    """Opens a checkpoint and makes every check that needs no weights in memory.

    Args:
        path: folder, or hub id.
        base: base of a LoRA or a projector; default: the recorded one. A full checkpoint ignores it.
        package: "llava" or "bunny", for a plain language model (`family_of`).
        flag: the flag that named the path, for the message if the family is not supported.
        weights: False accepts a folder without weights and downloads none.
        with_base: False does not open the base, which may then be missing.
        cache_dir: default: the hub's own cache.

    Raises:
        CheckpointError: the folder is missing or incomplete, or its base is missing or a different one.
        UnknownFamilyError: its model_type is not supported.
        HFLlavaError: a LLaVA of transformers that our classes cannot express.
    """
    name, path = str(path), local_folder(path, cache_dir, weights=weights)
    wanted = _Wanted(name, base, package, flag, with_base, cache_dir)
    if path.name.endswith(".partial"):
        raise CheckpointError(f"checkpoint {path} was left by an interrupted write; use one without .partial")
    if (path / ADAPTER_CONFIG).is_file():
        return _open_lora(path, wanted)
    if not (path / "config.json").is_file():
        found = some(sorted(item.name for item in path.iterdir())) or "nothing"
        raise _not_whole(path, f"no config.json and no {ADAPTER_CONFIG}; it holds {found}")
    stored = _read_config(path)
    files = _full_weight_files(path, weights)
    if not files and (path / PROJECTOR).is_file():
        opened = _open_base(path, Kind.PROJECTOR, stored, None, wanted)
        family = wanted.family({**(opened.own if opened else {}), **stored})
        tensors = _whole_tensors(path, [path / PROJECTOR])
        return Checkpoint(name, path, Kind.PROJECTOR, stored, stored, tensors, family, base=opened)
    if not files and weights:
        raise _not_whole(path, f"it has config.json, but neither weights nor {PROJECTOR}")
    hf = is_hf_llava(stored)
    own = config_from_hf(stored, name) if hf else stored
    # Of a hub id there may be an index only; the shards are downloaded when the model is loaded.
    tensors = _whole_tensors(path, files) if files and all(map(Path.is_file, files)) else Tensors(path)
    return Checkpoint(name, path, Kind.FULL, stored, own, tensors, wanted.family(own), hf=hf)


@dataclass(frozen=True)
class _Wanted:
    """The arguments of `open_checkpoint`."""

    name: str
    base: str | Path | Checkpoint | None
    package: str | None
    flag: str
    with_base: bool
    cache_dir: str | None

    def family(self, config: dict[str, Any]) -> ModelFamily:
        """The family of a config that this project can load."""
        try:
            check_settings(config)
            return family_of(config, self.package)
        except TilingError as error:
            raise CheckpointError(f"{self.flag} {self.name}: its config.json has {error}".strip()) from error
        except UnknownFamilyError as error:
            raise UnknownFamilyError(f"{self.flag} {self.name}: {error}".strip()) from error


def local_folder(name: str | Path, cache_dir: str | None = None, weights: bool = True) -> Path:
    """The folder itself, or the local copy of a hub id; raises `CheckpointError` if neither exists."""
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_file():
        raise CheckpointError(f"checkpoint {name} is a file; give the folder of the model")
    if not _HUB_ID.fullmatch(str(name)):
        raise CheckpointError(f"checkpoint {name} does not exist: there is no such folder")
    return _downloaded(str(name), cache_dir, weights)


def _downloaded(name: str, cache_dir: str | None, weights: bool) -> Path:
    wanted = ["*.json", "*.txt", "*.model", "*.jinja", *(["*.safetensors", "*.bin"] if weights else [])]
    ignored = ["training_args.bin", "consolidated*"]
    try:
        # Weights in two formats are downloaded in one, that which transformers takes.
        if weights and any(map(_SAFETENSORS.fullmatch, _files_on_the_hub(name))):
            ignored.append("pytorch_model*")
        return Path(snapshot_download(name, cache_dir=cache_dir, allow_patterns=wanted, ignore_patterns=ignored))
    except GatedRepoError as error:
        raise CheckpointError(
            f"checkpoint {name} is gated: accept its conditions on https://huggingface.co/{name}, and log in with "
            "`hf auth login`"
        ) from error
    except (HFValidationError, RepositoryNotFoundError, LocalEntryNotFoundError, OSError) as error:
        if folder := getattr(error, "snapshot_path", None):
            # Without the hub, and not every file is here. Whether those that are needed are, is checked later.
            return Path(folder)
        raise CheckpointError(
            f"checkpoint {name} does not exist: it is not a local folder, and the hub has nothing under that id "
            f"({str(error).splitlines()[0]})"
        ) from error
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise CheckpointError(
            f"checkpoint {name}: the download was interrupted ({why}); the same command goes on"
        ) from error


def recorded_name(name: str | Path | None) -> str | None:
    """What results record of a model that was named: the whole path of a folder, or the hub id."""
    return str(Path(name).resolve()) if name and Path(name).is_dir() else name and str(name)


def _files_on_the_hub(name: str) -> list[str]:
    """The files of a repository; none if the hub cannot be asked."""
    try:
        return list_repo_files(name)
    except (OSError, ValueError, httpx.HTTPError):
        return []


def _open_lora(path: Path, wanted: _Wanted) -> Checkpoint:
    settings = _read_json(path / ADAPTER_CONFIG)
    files = [path / name for name in ADAPTER_WEIGHTS if (path / name).is_file()]
    if not files:
        raise _not_whole(path, f"it has {ADAPTER_CONFIG}, but none of {', '.join(ADAPTER_WEIGHTS)}")
    stored = _read_config(path) if (path / "config.json").is_file() else {}
    adapter = Adapter(settings, _whole_tensors(path, files[:1]))
    trained = _whole_tensors(path, [path / NON_LORA] if (path / NON_LORA).is_file() else [])
    if stored.get("mm_vision_tower") and not trained.files:
        raise _not_whole(path, f"a LLaVA LoRA needs {NON_LORA} (it holds the trained projector)")
    base = _open_base(path, Kind.LORA, stored, adapter, wanted)
    family = wanted.family({**(base.own if base else {}), **stored})
    return Checkpoint(wanted.name, path, Kind.LORA, stored, stored, trained, family, adapter, base)


def _open_base(
    path: Path, kind: Kind, stored: dict[str, Any], adapter: Adapter | None, wanted: _Wanted
) -> Checkpoint | None:
    """The base of a LoRA or a projector, checked to be the model that it was trained on."""
    if not wanted.with_base:
        return None
    recorded = (adapter.config if adapter else {}).get("base_model_name_or_path") or stored.get("_name_or_path")
    base = wanted.base or recorded
    if not base:
        raise CheckpointError(f"{path} is a {kind.value} checkpoint and records no base; give --model-base")
    try:
        if not isinstance(base, Checkpoint):
            # A plain language model gets the checkpoint's package: the base of a Bunny becomes a Bunny.
            package = wanted.family(stored).package if stored.get("model_type") else wanted.package
            base = open_checkpoint(base, package=package, cache_dir=wanted.cache_dir)
    except CheckpointError as error:
        if wanted.base is not None:
            raise
        raise CheckpointError(
            f"{path} is a {kind.value} checkpoint of base {base!r}, which cannot be used ({error}); give --model-base "
            "the folder of that model"
        ) from error
    if base.kind is not Kind.FULL:
        raise CheckpointError(
            f"the base {base.name} is a {base.kind.value} checkpoint itself; merge it first "
            "(scripts/merge_lora_weights.py)"
        )
    config = base.model_config()
    wrong = [
        f"{field} {stored[field]} against {getattr(config, field)}"
        for field in _WIDTHS
        if field in stored and stored[field] != getattr(config, field)
    ]
    if wrong:
        raise CheckpointError(
            f"{path} was not trained on the base {base.name}: {'; '.join(wrong)}. Give --model-base the model that it "
            "was trained on"
        )
    if adapter is not None:
        _check_adapter_fits(path, stored, adapter, base, config.num_hidden_layers)
    differing = base_difference(path, base.tensors)
    if differing:
        raise CheckpointError(
            f"{path} was trained on another base than {base.name}: {differing}. Give --model-base the model that it "
            "was trained on (for a LoRA trained on top of a LLaVA that is that LLaVA, not the plain language model)"
        )
    return base


def _check_adapter_fits(path: Path, stored: dict[str, Any], adapter: Adapter, base: Checkpoint, have: int) -> None:
    """The LoRA's training and its base must have the same layers: PEFT silently drops or misplaces the others."""
    trained_on = stored.get("num_hidden_layers", have)
    kept, trained_kept = base.record.kept, LayerRecord.of({"num_hidden_layers": trained_on, **stored}).kept
    if trained_on != have or (adapter.layers and adapter.layers[-1] >= have) or kept != trained_kept:
        pruned = " (some were removed from it)" if kept and kept != trained_kept else ""
        raise CheckpointError(
            f"the LoRA {path} was trained on a model of {trained_on} layers (it adapts layers "
            f"{', '.join(map(str, adapter.layers))}), but its base {base.name} has {have}{pruned}; load it on the base "
            "that it was trained on, merge it there, and remove layers afterwards"
        )


def _full_weight_files(path: Path, needed: bool) -> list[Path]:
    """The files of a model's weights; if they are needed, all must be there."""
    try:
        files = weight_files(path)
    except (ValueError, KeyError) as error:
        raise _not_whole(path, f"its index of weights cannot be read ({error})") from error
    missing = [file.name for file in files if not file.is_file()]
    if missing and needed:
        raise _not_whole(path, f"its index names {', '.join(missing)}, which are missing")
    return files


def _whole_tensors(path: Path, files: list[Path]) -> Tensors:
    """The tensors of files, after a check that none is cut off."""
    tensors = Tensors(files)
    binaries = [file for file in files if file.suffix != ".safetensors"]
    for file in binaries:
        with open(file, "rb") as handle:
            begin = handle.read(2)
        # The archive's table of contents is at its end. Files from before torch 1.6 are no archives.
        if not begin or (begin == b"PK" and not zipfile.is_zipfile(file)):
            raise _not_whole(path, f"{file.name} ends too early")
    try:
        check_pickles(binaries)
        if not binaries:
            _ = tensors.shards
    except TensorFileError as error:
        raise _not_whole(path, str(error)) from error
    return tensors


def _read_config(path: Path) -> dict[str, Any]:
    return without_older_fields(_read_json(path / "config.json"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _not_whole(path.parent, f"{path.name} is not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise _not_whole(path.parent, f"{path.name} holds no JSON object")
    return values


def _not_whole(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path} is not whole: {why}. It looks like an interrupted write or copy; use an earlier checkpoint "
        "or copy it again"
    )
