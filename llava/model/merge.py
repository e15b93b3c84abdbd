"""A LoRA on its base: merged in float32, or kept separate for quantised weights."""

import warnings
from typing import Any

import torch

from llava.checkpoint.opened import Checkpoint, CheckpointError
from llava.checkpoint.safe import without_code


def attach_lora(model: Any, checkpoint: Checkpoint) -> Any:
    """PEFT's wrapper of the model with the LoRA; raises `CheckpointError` for weights that PEFT would drop."""
    from peft import PeftModel

    wrapped = without_code(PeftModel.from_pretrained, model, str(checkpoint.path))
    have = {name.replace(".default.", ".").removesuffix(".default") for name in wrapped.state_dict()}
    lost = [name for name in checkpoint.adapter.tensors.by_name if name not in have]
    if lost:
        raise CheckpointError(
            f"the LoRA {checkpoint.path} holds {len(lost)} weights that its base has no place for, first {lost[0]}"
            + ("; LoRA in a vision tower is not supported" if "vision_tower" in lost[0] else "")
        )
    return wrapped


def merge_lora(model: Any, checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """The model with the LoRA merged into its weights, in `dtype`.

    Each sum is in float32 and rounded once; a merge in half precision changes the answers (peft#1388).
    """
    from peft.tuners.lora import LoraLayer

    wrapped = attach_lora(model, checkpoint)
    for module in wrapped.modules():
        if isinstance(module, LoraLayer):
            base = module.get_base_layer()
            module.float()
            module.merge(safe_merge=True)
            base.to(dtype)
    with warnings.catch_warnings():
        # PEFT warns that nothing is left to merge; this only removes the wrappers.
        warnings.simplefilter("ignore")
        return wrapped.merge_and_unload()
