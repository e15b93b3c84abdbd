"""The identity of a checkpoint, at three depths.

base_values    shape and two values of every tensor, for any file format and dtype: recognises the base of a LoRA
digest         SHA-256 of the settings and a part of every tensor, for any shards: ties scores to one model
file_state     sizes and times of the weights, content of the small files: fast; answers are valid while it is unchanged
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llava.checkpoint.hf_llava import our_name
from llava.checkpoint.opened import Checkpoint
from llava.checkpoint.parts import is_vision
from llava.checkpoint.tensors import Stored, Tensors
from llava.files import write_json

BASE_FILE = "base_fingerprint.json"
_VALUES = 2
_RELATIVE, _ABSOLUTE = 1e-2, 1e-6
_BLOCK, _PLACES = 1 << 13, 8
_ELSEWHERE = {
    *("_name_or_path", "architectures", "transformers_version", "mm_vision_tower", "torch_dtype", "dtype", "use_cache"),
    *("base_model_name_or_path", "revision", "inference_mode", "peft_version", "task_type", "auto_mapping"),
}
"""Settings that name paths and versions: a moved model is still the same model."""
_UNORDERED = ("target_modules", "modules_to_save", "exclude_modules")
"""Lists that PEFT writes from sets."""
_SMALL = ("*config.json", "*token*.json", "*.index.json", "*.model", "vocab.*", "merges.txt", "*.jinja")
"""Files that loading reads, other than the weights."""


def base_values(tensors: Tensors) -> dict[str, Any] | None:
    """Shape and two values of every tensor of the language model (one row each is read); None without weights."""
    found = {}
    for stored in tensors:
        name = our_name(stored.name)
        # Quantised layers hold single numbers, such as their format.
        if is_vision(name) or name.endswith("rotary_emb.inv_freq") or not stored.shape:
            continue
        row = stored.row(stored.shape[0] // 2).flatten().float()
        values = [row[i * (len(row) - 1) // max(_VALUES - 1, 1)].item() for i in range(_VALUES)]
        found[name] = {"shape": list(stored.shape), "values": values}
    return {"tensors": dict(sorted(found.items()))} if found else None


def write_base_values(folder: Path, values: Mapping[str, Any] | None) -> None:
    """Records the base of an adapter or a projector in its folder."""
    if values is not None:
        write_json(folder / BASE_FILE, values)


def rename_base_values(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Renames the tensors of a recorded base; those whose new name is None are left out."""
    file = folder / BASE_FILE
    if file.is_file():
        values = json.loads(file.read_text(encoding="utf-8"))
        named = {rename(name): value for name, value in values["tensors"].items()}
        write_json(file, values | {"tensors": {name: value for name, value in named.items() if name is not None}})


def base_difference(folder: Path, base: Tensors) -> str | None:
    """How a base differs from the one that `folder` records; None if both are equal or nothing is recorded."""
    file = folder / BASE_FILE
    if not file.is_file():
        return None
    recorded = json.loads(file.read_text(encoding="utf-8"))["tensors"]
    found = (base_values(base) or {"tensors": {}})["tensors"]
    # A model with tied embeddings may store its head or leave it out.
    wanted = [name for name in recorded if name in found or name != "lm_head.weight"]
    differing = [name for name in wanted if name not in found or not _same(recorded[name], found[name])]
    return f"{len(differing)} of {len(recorded)} tensors differ, first {differing[0]}" if differing else None


def _same(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    return recorded["shape"] == found["shape"] and all(
        abs(a - b) <= _ABSOLUTE + _RELATIVE * max(abs(a), abs(b))
        for a, b in zip(recorded["values"], found["values"], strict=True)
    )


def digest(checkpoint: Checkpoint) -> str:
    """A digest of every tensor (`digest_of`) and of the settings without paths and versions.

    For a LoRA or a projector it includes the base. Removed and reverted layers are part of config.json.
    """
    adapter, base = checkpoint.adapter, checkpoint.base
    parts: list[Any] = [_settings(checkpoint.own), _settings(adapter.config if adapter else {})]
    if base is None:
        parts.append(digest_of(checkpoint.tensors))
    else:
        own = [Tensors([file]) for file in checkpoint.tensors.files]
        parts += [digest_of(tensors) for tensors in [*own, *([adapter.tensors] if adapter else [])]]
        parts += [_settings(base.own), digest_of(base.tensors)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in values.items() if name not in _ELSEWHERE}
    return kept | {name: sorted(kept[name]) for name in _UNORDERED if isinstance(kept.get(name), list)}


def digest_of(tensors: Iterable[Stored]) -> str:
    """SHA-256 of each tensor's name, dtype, shape and 8 blocks of 8 KiB (all of a small tensor)."""
    found = hashlib.sha256()
    for stored in sorted(tensors, key=lambda stored: stored.name):
        found.update(json.dumps([stored.name, stored.dtype, stored.shape]).encode())
        for block in _blocks(stored):
            found.update(block)
    return found.hexdigest()


def _blocks(stored: Stored) -> Iterator[bytes]:
    """Blocks of a tensor's bytes, evenly spaced from the first byte to the last."""
    size, length = stored.nbytes, _BLOCK
    starts = [(size - _BLOCK) * place // (_PLACES - 1) for place in range(_PLACES)]
    if size <= _BLOCK * _PLACES:
        length, starts = size, [0]
    if stored.file is not None:
        with open(stored.file, "rb", buffering=0) as file:
            for start in starts:
                file.seek(stored.start + start)
                yield file.read(length)
    elif size:
        raw = stored.raw_bytes()
        for start in starts:
            yield raw[start : start + length].numpy().tobytes()


def file_state(checkpoint: Checkpoint, vision_tower: str | None = None, sees: bool = True) -> dict[str, Any]:
    """The folders that a checkpoint is loaded from, and the state of their files.

    Args:
        vision_tower: a tower in place of the recorded one.
        sees: whether images are read; otherwise the tower is left out.

    Returns:
        `{"folders": {part: folder or hub id}, "files": {"part/file": [bytes, nanoseconds] or a digest}}`; the parts are
        `model`, `base` (of a LoRA or a projector) and `tower`.
    """
    parts = {"model": checkpoint.path}
    weights = [*checkpoint.tensors.files, *(checkpoint.adapter.tensors.files if checkpoint.adapter else [])]
    if checkpoint.base is not None:
        parts["base"] = checkpoint.base.path
        weights += checkpoint.base.tensors.files
    tower = vision_tower or checkpoint.tower
    if sees and tower and not any(path.samefile(tower) for path in parts.values() if Path(tower).exists()):
        parts["tower"] = Path(tower)
        weights += [file for kind in ("*.safetensors", "*.bin") for file in Path(tower).glob(kind)]
    files: dict[str, Any] = {}
    for part, folder in parts.items():
        for file in sorted({file for pattern in _SMALL for file in folder.glob(pattern)}):
            files[f"{part}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in sorted(file for file in weights if file.parent == folder):
            files[f"{part}/{file.name}"] = [file.stat().st_size, file.stat().st_mtime_ns]
    folders = {part: str(path.resolve() if path.is_dir() else path) for part, path in parts.items()}
    return {"folders": folders, "files": files}
