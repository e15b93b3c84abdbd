"""What tells one checkpoint from another: scores, blocks and perplexities are of one model only."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.checkpoint.digest import digest_of
from llava.checkpoint.old_folder import Checkpoint, Kind, read_checkpoint
from llava.checkpoint.rewrite import stored_file, stored_shards
from llava.model.builder import resolve_base

_ELSEWHERE = {
    *("_name_or_path", "architectures", "transformers_version", "mm_vision_tower", "torch_dtype", "dtype", "use_cache"),
    *("base_model_name_or_path", "revision", "inference_mode", "peft_version", "task_type", "auto_mapping"),
}
"""Where things lie and who wrote them: a model that is moved, or its tower, stays the model that it is."""
_UNORDERED = ("target_modules", "modules_to_save", "exclude_modules")
"""Lists that PEFT writes from sets."""


def identity_of(checkpoint: Checkpoint, model_base: str | None = None) -> str:
    """A digest that tells checkpoints apart without reading them whole.

    Of every tensor (`digest_of`), of config.json and of adapter_config.json, but for paths and versions; of a LoRA or
    a projector also of its base. What was removed and set back stands in config.json and so counts.
    """
    parts: list[Any] = [_settings(checkpoint.config), _settings(checkpoint.adapter or {})]
    if checkpoint.kind is Kind.FULL:
        parts.append(_weights(checkpoint.path))
    else:
        files = [*checkpoint.weight_files, *([checkpoint.adapter_weights] if checkpoint.kind is Kind.LORA else [])]
        parts += [digest_of(stored_file(file)) for file in files]
        base = read_checkpoint(resolve_base(checkpoint, model_base))
        parts += [_settings(base.config), _weights(base.path)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _weights(folder: Path) -> str:
    return digest_of(stored for shard in stored_shards(folder) for stored in shard)


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in values.items() if name not in _ELSEWHERE}
    return kept | {name: sorted(kept[name]) for name in _UNORDERED if isinstance(kept.get(name), list)}
