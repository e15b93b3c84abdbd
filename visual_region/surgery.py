"""Remove decoder layers of a model in memory; `LayerCut` says what a removal changes, here and in folders on disk."""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llava.checkpoint.adapter import strip_wrapper_prefix
from llava.checkpoint.record import LayerRecord
from llava.checkpoint.tensors import Stored
from llava.names import agree, listed
from llava.names import count as counted
from visual_region.layers import LayerSelection, LayerSelectionError


class SurgeryError(ValueError):
    """Layers that cannot be removed or set back."""


@dataclass(frozen=True)
class LayerCut:
    """A removal from a model of `depth` layers; `keep` are the indices that remain, sorted."""

    keep: tuple[int, ...]
    depth: int

    @classmethod
    def without(cls, layers: Sequence[int], record: LayerRecord) -> "LayerCut":
        """The cut that removes `layers`, indices of the model as it is now; raises `SurgeryError` if it cannot."""
        depth = record.depth
        if wrong := sorted({i for i in layers if not 0 <= i < depth}):
            raise SurgeryError(f"cannot remove {listed('layer', wrong)}: {_numbering(record)}")
        keep = tuple(i for i in range(depth) if i not in set(layers))
        if not keep:
            raise SurgeryError(f"cannot remove all {depth} layers")
        return cls(keep, depth)

    @property
    def removed(self) -> tuple[int, ...]:
        return tuple(i for i in range(self.depth) if i not in set(self.keep))

    def rename(self, name: str, *layer_paths: str) -> str | None:
        """The name of a tensor or module after the cut, with or without PEFT's prefix; None if it is removed."""
        for path in layer_paths:
            index = layer_of(name, path)
            if index is not None:
                kept = index in self.keep
                return name.replace(f"{path}.{index}.", f"{path}.{self.keep.index(index)}.", 1) if kept else None
        return name

    def config_changes(self, config: Any) -> dict[str, Any]:
        """The fields of a config object that change, without the record."""
        changes: dict[str, Any] = {"num_hidden_layers": len(self.keep)}
        types = getattr(config, "layer_types", None)
        if types is not None and len(types) == self.depth:
            changes["layer_types"] = [types[i] for i in self.keep]
        return changes


def layer_of(name: str, layer_path: str) -> int | None:
    """The decoder layer of a tensor or module, by its full name; None for all others, such as a vision tower's."""
    match = re.match(rf"{re.escape(layer_path)}\.(\d+)\.", strip_wrapper_prefix(name))
    return int(match.group(1)) if match else None


def layers_named(spec: str, record: LayerRecord) -> tuple[int, ...]:
    """The layers that `spec` names in the model as it is now; an error also says what was removed before."""
    try:
        return LayerSelection.parse(spec, record.depth).layers
    except LayerSelectionError as error:
        raise LayerSelectionError(f"{error}\n  {_numbering(record)}" if record.removed else str(error)) from error


def describe_layers(layers: Sequence[int], record: LayerRecord) -> str:
    """Layers as the model is now and, if some were removed before, in the unpruned model."""
    text = listed("layer", layers)
    if record.removed:
        text += f" (of the unpruned model {', '.join(str(record.original[i]) for i in layers)})"
    return text


def lowest_outside(scores: Sequence[float], count: int, protected: Sequence[int]) -> tuple[int, ...]:
    """The `count` layers of lowest score that are not protected, sorted by index; `SurgeryError` if there are fewer."""
    free = [i for i in range(len(scores)) if i not in set(protected)]
    if count > len(free):
        hint = "; --anywhere allows the region too" if len(free) < len(scores) else ""
        outside = f"{len(free)} of {len(scores)} {agree(len(free), 'lies', 'lie')} outside the protected region"
        raise SurgeryError(f"cannot remove {counted(count, 'layer')}: {outside}{hint}")
    return tuple(sorted(sorted(free, key=scores.__getitem__)[:count]))


def remove_layers(model: nn.Module, layers: Sequence[int], layer_path: str) -> nn.Module:
    """Removes decoder layers (indices as the model is now) in place, also from the config and its record.

    Raises:
        SurgeryError: indices that do not exist, none would remain, or adapters are still on the model.
    """
    if hasattr(model, "peft_config"):
        raise SurgeryError("the model has LoRA adapters; merge them before removing layers")
    parent, old = model.get_submodule(layer_path.rpartition(".")[0]), model.get_submodule(layer_path)
    cut = LayerCut.without(layers, LayerRecord.of(parent.config))
    _set_layers(model, layer_path, nn.ModuleList([old[i] for i in cut.keep]))
    for config in {id(c): c for c in (model.config, parent.config)}.values():
        LayerRecord.of(config).cut(cut.keep).put(config)
        for name, value in cut.config_changes(config).items():
            setattr(config, name, value)
    return model


@contextlib.contextmanager
def layers_removed(model: nn.Module, layers: Sequence[int], layer_path: str) -> Iterator[nn.Module]:
    """The model without some layers, restored at the end of the block."""
    parent, old = model.get_submodule(layer_path.rpartition(".")[0]), model.get_submodule(layer_path)
    configs = {id(config): (config, copy.deepcopy(config.__dict__)) for config in (model.config, parent.config)}
    try:
        yield remove_layers(model, layers, layer_path)
    finally:
        _set_layers(model, layer_path, old)
        for config, values in configs.values():
            config.__dict__.clear()
            config.__dict__.update(values)


@contextlib.contextmanager
def weights_replaced(model: nn.Module, weights: Mapping[str, Stored]) -> Iterator[nn.Module]:
    """The model with other values (of any dtype) in some parameters, restored at the end of the block.

    The values before are kept in main memory, and the others are read one by one: a GPU has room for one model.
    """
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].detach().to("cpu", copy=True) for name in weights}
    with torch.no_grad():
        try:
            for name, stored in weights.items():
                parameters[name].copy_(stored.tensor())
            yield model
        finally:
            for name, value in before.items():
                parameters[name].copy_(value)


def _numbering(record: LayerRecord) -> str:
    text = f"the model's layers are 0..{record.depth - 1}"
    if not record.removed:
        return text
    removed, original = listed("layer", record.removed), ", ".join(map(str, record.original))
    gone = f"{removed} of the {record.original_depth} that it had {agree(len(record.removed), 'was', 'were')} removed"
    return f"{text}, counted as it is now; {gone} already, and those that remain were {original}"


def _set_layers(model: nn.Module, layer_path: str, layers: nn.ModuleList) -> None:
    """Puts the decoder layers into the model; `layer_idx` of each attention is its place in the key-value cache."""
    model.set_submodule(layer_path, layers)
    for position, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
