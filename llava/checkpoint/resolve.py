"""What a checkpoint is to be loaded as: its base, its family, its whole config. All checks, and no weights."""

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from llava.checkpoint.base_identity import check_base
from llava.checkpoint.hf_llava import is_hf_llava
from llava.checkpoint.old_folder import (
    NON_LORA,
    Checkpoint,
    CheckpointError,
    Kind,
    check_adapter_fits,
    read_checkpoint,
)
from llava.checkpoint.weights import WeightFiles
from llava.families import ModelFamily, family_of


def resolve(model_path: str | Path, model_base: str | None) -> tuple[Checkpoint, Path, dict[str, Any]]:
    """The checkpoint, the folder of the weights below it (its own, where it is a full one), and the config."""
    checkpoint = read_checkpoint(model_path)
    if checkpoint.kind is Kind.FULL:
        return checkpoint, checkpoint.path, checkpoint.config
    base = resolve_base(checkpoint, model_base)
    return checkpoint, base, _merged_config(checkpoint, base)


def planned_config(model_path: str | Path, model_base: str | None = None, vision_tower: str | None = None) -> Any:
    """The config that `load_pretrained_model` would load with; all its checks, and no weights."""
    _, config = family_config(resolve(model_path, model_base)[2])
    if vision_tower:
        config.mm_vision_tower = vision_tower
    return config


def stored_dtype(folder: str | Path) -> torch.dtype:
    """The dtype that the language model's weights have on disk.

    transformers' `dtype="auto"` would take the config's word for it, and a LoRA's config says how its run computed: a
    float16 base would be rounded to bfloat16 before the LoRA is added.
    """
    weights = WeightFiles(folder)
    found = (weights.row(name, 0).dtype for name in weights.names() if "layers." in name and "vision" not in name)
    # A base that is stored in 8 or 4 bits still has its norms in the dtype it computes in.
    return next((dtype for dtype in found if dtype.is_floating_point), torch.float32)


def family_config(path_or_config: str | Path | dict[str, Any], package: str | None = None) -> tuple[ModelFamily, Any]:
    """The family and the vision-language config (of the family's class) for a checkpoint or a plain backbone.

    Args:
        package: whose model a plain backbone is to become, as in `family_of`.

    Raises:
        UnknownFamilyError: the folder's model_type belongs to no family.
    """
    if isinstance(path_or_config, dict):
        values = path_or_config
    else:
        local = Path(path_or_config) / "config.json"
        values = read_checkpoint(path_or_config).config if local.is_file() else _hub_config(str(path_or_config))
        if is_hf_llava(values):
            values = read_checkpoint(path_or_config).config
    family = family_of(values, package)
    config = family.load_config_class().from_dict({**values, "model_type": family.model_type})
    return family, config


def resolve_base(checkpoint: Checkpoint, model_base: str | None) -> Path:
    """The folder of a LoRA's or a projector's base; checked to fit, and to be the one that it was trained on.

    No weights are loaded for it.
    """
    base = model_base or checkpoint.recorded_base
    if not base:
        raise CheckpointError(
            f"{checkpoint.path} is a {checkpoint.kind.value} checkpoint and records no base; give --model-base"
        )
    try:
        found = read_checkpoint(base)
    except CheckpointError as error:
        if model_base is not None:
            raise
        raise CheckpointError(
            f"{checkpoint.path} is a {checkpoint.kind.value} checkpoint of base {base!r}, which cannot be used "
            f"({error}); give --model-base the folder of that model"
        ) from error
    if found.kind is not Kind.FULL:
        raise CheckpointError(
            f"the base {base} is a {found.kind.value} checkpoint itself; merge it first (scripts/merge_lora_weights.py)"
        )
    _, config = family_config(found.config)
    _check_widths(checkpoint, config, base)
    if checkpoint.kind is Kind.LORA:
        check_adapter_fits(checkpoint, config.to_dict(), base)
    check_base(checkpoint.path, found.path)
    return found.path


def _check_widths(checkpoint: Checkpoint, base: Any, name: str | Path) -> None:
    """Sizes that a checkpoint's own config records must be its base's."""
    wrong = [
        f"{field} {checkpoint.config[field]} against {getattr(base, field)}"
        for field in ("hidden_size", "intermediate_size", "num_attention_heads")
        if field in checkpoint.config and checkpoint.config[field] != getattr(base, field)
    ]
    if wrong:
        raise CheckpointError(
            f"{checkpoint.path} was not trained on the base {name}: {'; '.join(wrong)}. Give --model-base the model "
            "that it was trained on"
        )


def _merged_config(checkpoint: Checkpoint, base: Path) -> dict[str, Any]:
    """The checkpoint's own config, on top of its base's (LoRA folders may lack a config)."""
    own = dict(checkpoint.config)
    # How a run held its frozen base says nothing about how this one is to be loaded.
    own.pop("quantization_config", None)
    values = {**family_config(read_checkpoint(base).config)[1].to_dict(), **own}
    values["model_type"] = family_of(values).model_type
    if not values.get("mm_vision_tower"):
        raise CheckpointError(
            f"{checkpoint.path} has no config.json that names a vision tower, and its base {base} is a plain language "
            "model. Upstream's checkpoint-N of a LoRA run holds the LoRA only (its projector was never written); use "
            "the folder of the finished run"
        )
    if checkpoint.kind is Kind.LORA and not (checkpoint.path / NON_LORA).is_file():
        print(
            f"note: {checkpoint.path} has no {NON_LORA}; the projector is its base's. If the LoRA was trained together "
            "with a projector (upstream's checkpoint-N), that projector is missing and answers will be wrong",
            file=sys.stderr,
        )
    return values


def _hub_config(name: str) -> dict[str, Any]:
    try:
        return AutoConfig.from_pretrained(name).to_dict()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"model {name!r} is neither a folder here nor a readable hub id ({str(error).splitlines()[0]})"
        ) from error
