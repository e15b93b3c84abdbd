"""Train exactly the selected decoder layers: LoRA on them, or the whole layers.

LoRA targets are full module paths under the decoder. PEFT's `layers_to_transform` is not used: it also matches layers
of the vision tower, reads an empty list as all layers, and ignores indices that do not exist.
"""

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from llava.names import agree, listed
from visual_region.layers import LayerSelection


class TuningError(RuntimeError):
    """What would train is not what was asked for."""


def lora_targets(model: nn.Module, selection: LayerSelection, layer_path: str) -> list[str]:
    """Full names of the linear modules in the selected layers, in the model's order."""
    return [
        f"{layer_path}.{i}.{name}"
        for i in selection
        for name, module in model.get_submodule(layer_path)[i].named_modules()
        if isinstance(module, nn.Linear)
    ]


def apply_lora(
    model: nn.Module, selection: LayerSelection, layer_path: str, *, r: int, lora_alpha: int, lora_dropout: float
) -> Any:
    """The model as a PeftModel with LoRA on exactly the linear modules of the selected layers.

    Raises:
        TuningError: PEFT adapted other modules than these.
    """
    from peft import LoraConfig, get_peft_model

    _check_depth(model, selection, layer_path)
    wanted = lora_targets(model, selection, layer_path)
    # PEFT matches an expression with whole names, a list with the ends of names: also in a vision tower.
    inside = dict.fromkeys(re.escape(name.removeprefix(f"{layer_path}.").split(".", 1)[1]) for name in wanted)
    config = LoraConfig(
        target_modules=rf"{re.escape(layer_path)}\.({'|'.join(map(str, selection))})\.({'|'.join(inside)})",
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
    )
    wrapped = get_peft_model(model, config)
    adapted = {
        name.removeprefix("base_model.model.")
        for name, module in wrapped.named_modules()
        if hasattr(module, "lora_A") and isinstance(module.lora_A, nn.ModuleDict) and len(module.lora_A)
    }
    if adapted != set(wanted):
        lacking, unexpected = sorted(set(wanted) - adapted)[:3], sorted(adapted - set(wanted))[:3]
        raise TuningError(
            f"LoRA is on {len(adapted)} modules instead of {len(wanted)}; missing {lacking}, unexpected {unexpected}"
        )
    return wrapped


def train_layers(model: nn.Module, selection: LayerSelection, layer_path: str) -> None:
    """The selected layers train, every other parameter is frozen; if all are selected, the whole model trains.

    Upstream's full finetuning trains embeddings, norms and head too.
    """
    _check_depth(model, selection, layer_path)
    model.requires_grad_(len(selection) == selection.num_layers)
    for i in selection:
        model.get_submodule(layer_path)[i].requires_grad_(True)


def trained_layers(model: nn.Module, layer_path: str) -> tuple[int, ...]:
    """Indices of the decoder layers with at least one trainable parameter, also inside a PeftModel."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = base.get_submodule(layer_path)
    return tuple(i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters()))


def assert_trains_exactly(model: nn.Module, layers: Iterable[int], layer_path: str) -> None:
    """Raises `TuningError` if the trainable decoder layers are not exactly these."""
    found, wanted = trained_layers(model, layer_path), tuple(layers)
    if found != wanted:
        asked = f"{listed('layer', wanted) if wanted else 'none'} {agree(len(wanted), 'was', 'were')} asked for"
        raise TuningError(f"{listed('layer', found) if found else 'no layer'} would train, but {asked}")


def recompute_layers(model: Any, layers: Iterable[int], layer_path: str) -> None:
    """Gradient checkpointing of exactly these decoder layers; transformers' own switch is for all of them."""
    chosen = set(layers)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for i, layer in enumerate(model.get_submodule(layer_path)):
        layer.gradient_checkpointing = i in chosen


def _check_depth(model: nn.Module, selection: LayerSelection, layer_path: str) -> None:
    depth = len(model.get_submodule(layer_path))
    if depth != selection.num_layers:
        raise TuningError(f"the selection is of {selection.num_layers} layers, the model has {depth}")
