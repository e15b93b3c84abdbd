"""Train exactly the selected decoder layers: layer-masked LoRA, or whole layers.

LoRA targets are full module paths under the decoder. PEFT's own `layers_to_transform` also matches layers of the
vision tower, takes an empty list for all, and drops indices that do not exist (docs of traps: tests/visual_region).
"""

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from visual_region.layers import LayerSelection


class TuningError(RuntimeError):
    """What would train is not what was asked for."""


def decoder_layers(model: nn.Module, layer_path: str) -> nn.ModuleList:
    """The decoder's layers, at the family's `layer_path` ("model.layers")."""
    return model.get_submodule(layer_path)


def lora_targets(model: nn.Module, selection: LayerSelection, layer_path: str) -> list[str]:
    """Full names of the linear modules in the selected layers, in order of the model."""
    return [
        f"{layer_path}.{i}.{name}"
        for i in selection
        for name, module in decoder_layers(model, layer_path)[i].named_modules()
        if isinstance(module, nn.Linear)
    ]


def lora_target_regex(model: nn.Module, selection: LayerSelection, layer_path: str) -> str:
    """One anchored expression for `LoraConfig.target_modules` that matches `lora_targets` and nothing else."""
    targets = lora_targets(model, selection, layer_path)
    prefix = f"{layer_path}."
    tails = dict.fromkeys(target[len(prefix) :].split(".", 1)[1] for target in targets)
    layers = "|".join(map(str, selection))
    return rf"{re.escape(prefix)}({layers})\.({'|'.join(re.escape(tail) for tail in tails)})"


def apply_lora(
    model: nn.Module,
    selection: LayerSelection,
    layer_path: str,
    *,
    r: int,
    lora_alpha: int,
    lora_dropout: float,
    bias: str = "none",
) -> Any:
    """Wraps the model with LoRA on the selected layers.

    Returns:
        the PeftModel.

    Raises:
        TuningError: PEFT adapted other modules than were asked for.
    """
    from peft import LoraConfig, get_peft_model

    _check_depth(model, selection, layer_path)
    wanted = set(lora_targets(model, selection, layer_path))
    config = LoraConfig(
        r=r,
        lora_alpha=lora_alpha,
        target_modules=lora_target_regex(model, selection, layer_path),
        lora_dropout=lora_dropout,
        bias=bias,
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, config)
    adapted = {
        name.removeprefix("base_model.model.")
        for name, module in wrapped.named_modules()
        if hasattr(module, "lora_A") and isinstance(module.lora_A, nn.ModuleDict) and len(module.lora_A)
    }
    if adapted != wanted:
        raise TuningError(
            f"LoRA landed on {len(adapted)} modules instead of {len(wanted)}; missing {sorted(wanted - adapted)[:3]}, "
            f"unexpected {sorted(adapted - wanted)[:3]}"
        )
    return wrapped


def train_layers(model: nn.Module, selection: LayerSelection, layer_path: str) -> None:
    """Layer-wise full tuning: the selected layers train, every other parameter of the language model is frozen.

    With all layers selected the whole language model trains (embeddings, norms and head too), as upstream's full
    finetuning does.
    """
    _check_depth(model, selection, layer_path)
    everything = len(selection) == selection.num_layers
    model.requires_grad_(everything)
    for i in selection:
        decoder_layers(model, layer_path)[i].requires_grad_(True)


def trained_layers(model: nn.Module, layer_path: str) -> tuple[int, ...]:
    """Indices of the decoder layers with at least one trainable parameter; finds them through a PEFT wrapper too."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = decoder_layers(base, layer_path)
    return tuple(i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters()))


def assert_trains_exactly(model: nn.Module, layers: Iterable[int], layer_path: str) -> None:
    """Raises `TuningError` if the trainable decoder layers are not exactly these."""
    found, wanted = trained_layers(model, layer_path), tuple(layers)
    if found != wanted:
        raise TuningError(f"layers {found} would train, but {wanted} were asked for")


def _check_depth(model: nn.Module, selection: LayerSelection, layer_path: str) -> None:
    depth = len(decoder_layers(model, layer_path))
    if depth != selection.num_layers:
        raise TuningError(f"the selection is of {selection.num_layers} layers, the model has {depth}")
