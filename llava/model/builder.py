"""Loading any checkpoint of this stack (upstream: llava/model/builder.py).

What a folder is follows from its files and its config's model_type, never from its name.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from llava.families import ModelFamily, family_of
from llava.model.checkpoint import (
    NON_LORA,
    PROJECTOR,
    Checkpoint,
    CheckpointError,
    Kind,
    check_adapter_fits,
    read_checkpoint,
)
from llava.model.multimodal_projector.builder import check_projector_weights, read_projector

_DEFAULT_CONTEXT = 2048


def load_pretrained_model(
    model_path: str,
    model_base: str | None = None,
    model_name: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    device: str = "cuda",
    use_flash_attn: bool = False,
    *,
    dtype: torch.dtype | None = None,
    vision_tower: str | None = None,
    load_tower: bool = True,
    **kwargs: Any,
) -> tuple[PreTrainedTokenizerBase, Any, BaseImageProcessor | None, int]:
    """Loads a full, LoRA, projector-only, merged or pruned checkpoint, ready to answer.

    Args:
        model_path: folder (or hub id of a full model).
        model_base: base of a LoRA or a projector; default: the one its files record.
        model_name: upstream's; accepted and not used.
        device: where to load; "cuda" without a GPU means the CPU.
        dtype: default float16 on a GPU, as upstream, and float32 on a CPU.
        vision_tower: a tower in place of the path that config.json records, which is somebody else's.
        load_tower: False leaves the tower a stub, where features come from a cache or only text is read.

    Returns:
        `(tokenizer, model, image_processor, context_len)`; image_processor is None for a model without a tower.
    """
    if load_8bit or load_4bit:
        raise NotImplementedError("loading in 8 or 4 bits is not built yet; load without --load-8bit and --load-4bit")
    if device == "cuda" and not torch.cuda.is_available():
        device = "cpu"
    dtype = dtype or (torch.float32 if device == "cpu" else torch.float16)
    if use_flash_attn:
        kwargs["attn_implementation"] = "flash_attention_2"

    checkpoint = read_checkpoint(model_path)
    if checkpoint.kind is Kind.FULL:
        model = _load_full(checkpoint.path, checkpoint.config, dtype, vision_tower, kwargs)
        tokenizer = load_tokenizer(checkpoint.path)
    else:
        base = resolve_base(checkpoint, model_base)
        config = _merged_config(checkpoint, base)
        model = _load_full(base, config, "auto" if checkpoint.kind is Kind.LORA else dtype, vision_tower, kwargs)
        add_trained_weights(model, checkpoint)
        tokenizer = load_tokenizer(checkpoint.path if (checkpoint.path / "tokenizer_config.json").is_file() else base)
        if checkpoint.kind is Kind.LORA:
            model = _merge_lora(model, checkpoint)
    model = model.to(device=device, dtype=dtype).eval()
    model.config.use_cache = True
    model.config.name_or_path = str(model_path)

    tower = model.get_vision_tower()
    processor = None
    if tower is not None:
        processor = tower.load_processor()
        if load_tower:
            tower.load_model(device_map=device, dtype=dtype)
    context = getattr(model.config, "max_sequence_length", None) or _DEFAULT_CONTEXT
    return tokenizer, model, processor, context


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder. Padding is by position and mask here, so a missing pad token is only filled in."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def family_config(path_or_config: str | Path | dict[str, Any]) -> tuple[ModelFamily, Any]:
    """The family and the vision-language config (of the family's class) for a checkpoint or a plain backbone.

    Raises:
        UnknownFamilyError: the folder's model_type belongs to no family.
    """
    if isinstance(path_or_config, dict):
        values = path_or_config
    else:
        local = Path(path_or_config) / "config.json"
        values = read_checkpoint(path_or_config).config if local.is_file() else _hub_config(str(path_or_config))
    family = family_of(values)
    config = family.load_config_class().from_dict({**values, "model_type": family.model_type})
    return family, config


def resolve_base(checkpoint: Checkpoint, model_base: str | None) -> Path | str:
    """The base to load a LoRA or a projector on; checked to fit before any weight is read."""
    base = model_base or checkpoint.recorded_base
    if not base:
        raise CheckpointError(
            f"{checkpoint.path} is a {checkpoint.kind.value} checkpoint and records no base; give --model-base"
        )
    if not Path(base).is_dir() and model_base is None:
        raise CheckpointError(
            f"{checkpoint.path} is a {checkpoint.kind.value} checkpoint of base {base!r}, which is not a folder here; "
            "give --model-base the folder of that model"
        )
    _, config = family_config(base)
    if checkpoint.kind is Kind.LORA:
        check_adapter_fits(checkpoint, config.to_dict(), base)
    return base


def add_trained_weights(model: Any, checkpoint: Checkpoint) -> None:
    """Puts a LoRA's or stage 1's trained projector in place; every tensor must find its parameter."""
    file = checkpoint.path / (NON_LORA if checkpoint.kind is Kind.LORA else PROJECTOR)
    if not file.is_file():
        return
    weights = read_projector(file)
    check_projector_weights(weights, model.config, file)
    model.get_model().mm_projector.load_state_dict(weights)
    other = {
        strip_wrapper_prefix(name): value
        for name, value in torch.load(file, map_location="cpu", weights_only=True).items()
        if "mm_projector." not in name
    }
    unexpected = model.load_state_dict(other, strict=False).unexpected_keys
    if unexpected:
        raise CheckpointError(f"{file} holds weights that the model has no place for: {', '.join(unexpected[:3])}")


def strip_wrapper_prefix(name: str) -> str:
    """`base_model.model.model.x`, as PEFT names it, to `model.x`."""
    return name.removeprefix("base_model.model.")


def _load_full(path: str | Path, config: Any, dtype: Any, vision_tower: str | None, kwargs: dict[str, Any]) -> Any:
    family, config = family_config(config if isinstance(config, dict) else config.to_dict())
    if vision_tower:
        config.mm_vision_tower = vision_tower
    return family.load_model_class().from_pretrained(path, config=config, dtype=dtype, **kwargs)


def _merged_config(checkpoint: Checkpoint, base: str | Path) -> dict[str, Any]:
    """The checkpoint's own config, on top of its base's (old PEFT folders may lack a config)."""
    _, base_config = family_config(base)
    values = {**base_config.to_dict(), **checkpoint.config}
    values["model_type"] = family_of(values).model_type
    if not values.get("mm_vision_tower"):
        raise CheckpointError(f"{checkpoint.path} has no config.json that names a vision tower; was it copied whole?")
    return values


def _merge_lora(model: Any, checkpoint: Checkpoint) -> Any:
    """Adds the LoRA to its base. The sum is taken in float32 and rounded once: PEFT keeps adapters in float32."""
    from peft import PeftModel

    wrapped = PeftModel.from_pretrained(model, str(checkpoint.path))
    return wrapped.merge_and_unload()


def _hub_config(name: str) -> dict[str, Any]:
    try:
        return AutoConfig.from_pretrained(name).to_dict()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"model {name!r} is neither a folder here nor a readable hub id ({str(error).splitlines()[0]})"
        ) from error
