"""What a checkpoint was when it answered: answers and scores stand only for as long as it stays so."""

import hashlib
from pathlib import Path
from typing import Any

from llava.checkpoint.old_folder import Kind, read_checkpoint
from llava.checkpoint.resolve import resolve_base

_SMALL = ("*config.json", "*token*.json", "*.index.json", "*.model", "vocab.*", "merges.txt")
"""Files besides the weights that loading heeds: configs, of models, adapters, processors and generation, the
tokenizer's files, indexes of weights."""


def model_state(
    model_path: str | Path, model_base: str | None = None, vision_tower: str | None = None, sees: bool = True
) -> dict[str, Any]:
    """The folders that a checkpoint is loaded from, and what their files are.

    Weights are told by size and time of change, as reading them takes minutes; configs and tokenizers by content.

    Args:
        model_base, vision_tower: as `load_pretrained_model` takes them.
        sees: whether images are read: without them the tower changes nothing.

    Returns:
        `{"folders": {part: folder}, "files": {"part/file": [bytes, nanoseconds] or a digest}}`; the parts are `model`,
        `base` (of a LoRA or a projector) and `tower`. A tower that is no folder here (the hub's) is told by its name.

    Raises:
        CheckpointError: no checkpoint, or one without its base.
    """
    checkpoint = read_checkpoint(model_path)
    parts = {"model": checkpoint.path}
    config = checkpoint.config
    weights = list(checkpoint.weight_files)
    if checkpoint.kind is Kind.LORA:
        weights.append(checkpoint.adapter_weights)
    if checkpoint.kind is not Kind.FULL:
        base = read_checkpoint(resolve_base(checkpoint, model_base))
        parts["base"] = base.path
        weights += base.weight_files
        config = {**base.config, **config}
    tower = vision_tower or config.get("mm_vision_tower")
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
