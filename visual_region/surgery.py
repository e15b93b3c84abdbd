"""Remove decoder layers, or set them back to the backbone's weights. One place owns every coupled edit.

`LayerCut` decides what a removal means: which index a layer gets, what its tensors are called then, what changes in
the config. Models in memory and folders on disk both use it.
"""

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
from visual_region.layers import LayerSelection, LayerSelectionError

_PER_LAYER_LISTS = ("layer_types",)


class SurgeryError(ValueError):
    """Layers that cannot be removed or set back."""


@dataclass(frozen=True)
class LayerCut:
    """A removal: `keep` are the indices that stay, sorted, of a model of `depth` layers."""

    keep: tuple[int, ...]
    depth: int

    @classmethod
    def without(cls, layers: Sequence[int], record: LayerRecord) -> "LayerCut":
        """The cut that removes `layers`, indices of the model as it is now.

        Raises:
            SurgeryError: indices that do not exist, or none would remain.
        """
        depth = record.depth
        wrong = sorted({i for i in layers if not 0 <= i < depth})
        if wrong:
            raise SurgeryError(f"cannot remove layers {wrong}: {_numbering(record)}")
        keep = tuple(i for i in range(depth) if i not in set(layers))
        if not keep:
            raise SurgeryError(f"cannot remove all {depth} layers")
        return cls(keep, depth)

    @property
    def removed(self) -> tuple[int, ...]:
        return tuple(i for i in range(self.depth) if i not in set(self.keep))

    def rename(self, name: str, *layer_paths: str) -> str | None:
        """The name of a tensor or module after the cut, with or without PEFT's prefix; None if it is removed.

        Args:
            layer_paths: where the decoder layers are; several if formats differ in that.
        """
        layer_path = next((path for path in layer_paths if layer_of(name, path) is not None), None)
        if layer_path is None:
            return name
        index = layer_of(name, layer_path)
        if index not in self.keep:
            return None
        head, _, tail = name.partition(f"{layer_path}.{index}.")
        return f"{head}{layer_path}.{self.keep.index(index)}.{tail}"

    def config_changes(self, config: Any) -> dict[str, Any]:
        """The fields of a config object that change: depth and per-layer lists. The record is `record.cut(keep)`."""
        lists = {name: getattr(config, name, None) for name in _PER_LAYER_LISTS}
        changes: dict[str, Any] = {
            name: [values[i] for i in self.keep]
            for name, values in lists.items()
            if values is not None and len(values) == self.depth
        }
        return changes | {"num_hidden_layers": len(self.keep)}


def layer_of(name: str, layer_path: str) -> int | None:
    """The decoder layer that a tensor or module belongs to, by its full name; None for all else.

    Anchored at the family's `layer_path` ("model.layers"): a vision tower has `layers` too.
    """
    match = re.match(rf"{re.escape(layer_path)}\.(\d+)\.", strip_wrapper_prefix(name))
    return int(match.group(1)) if match else None


def layers_named(spec: str, record: LayerRecord) -> tuple[int, ...]:
    """The layers that `spec` names in the model as it is now.

    Raises:
        LayerSelectionError: also says what was removed before, for users who mean layers of the unpruned model.
    """
    try:
        return LayerSelection.parse(spec, record.depth).layers
    except LayerSelectionError as error:
        if record.removed:
            raise LayerSelectionError(f"{error}\n  {_numbering(record)}") from error
        raise


def describe_layers(layers: Sequence[int], record: LayerRecord) -> str:
    """Layers as the model is now, and, if some were removed before, what they were in the unpruned model."""
    text = f"layers {', '.join(map(str, layers))}"
    if record.removed:
        text += f" (of the unpruned model {', '.join(str(record.original[i]) for i in layers)})"
    return text


def lowest_outside(scores: Sequence[float], count: int, protected: Sequence[int]) -> tuple[int, ...]:
    """The `count` layers of lowest score that are not protected, sorted by index.

    Raises:
        SurgeryError: fewer are outside.
    """
    free = [i for i in range(len(scores)) if i not in set(protected)]
    if count > len(free):
        hint = "; --anywhere lets the region go too" if len(free) < len(scores) else ""
        raise SurgeryError(
            f"cannot remove {count} layers: {len(free)} of {len(scores)} lie outside the protected region{hint}"
        )
    return tuple(sorted(sorted(free, key=lambda i: (scores[i], i))[:count]))


def remove_layers(model: nn.Module, layers: Sequence[int], layer_path: str) -> nn.Module:
    """Removes decoder layers in place.

    The edits that belong together: the module list, each remaining attention's `layer_idx` (its place in the
    key-value cache), what `LayerCut` changes in the config, and the record.

    Args:
        layers: indices as the model is now.
        layer_path: attribute path of the decoder layers ("model.layers").

    Returns:
        the same model. Its config then records the kept and the removed layers in the numbering of the model before
        its first removal.

    Raises:
        SurgeryError: indices that do not exist, none would remain, or adapters are still on the model.
    """
    if hasattr(model, "peft_config"):
        raise SurgeryError("the model carries LoRA adapters; merge them before removing layers")
    parent_path, _, attribute = layer_path.rpartition(".")
    parent = model.get_submodule(parent_path)
    old = getattr(parent, attribute)
    cut = LayerCut.without(layers, LayerRecord.of(parent.config))
    setattr(parent, attribute, nn.ModuleList([old[i] for i in cut.keep]))
    _number(getattr(parent, attribute))
    for config in {id(c): c for c in (model.config, parent.config)}.values():
        LayerRecord.of(config).cut(cut.keep).put(config)
        for name, value in cut.config_changes(config).items():
            setattr(config, name, value)
    return model


@contextlib.contextmanager
def layers_removed(model: nn.Module, layers: Sequence[int], layer_path: str) -> Iterator[nn.Module]:
    """The model without some layers, for the length of a block; then it is as it was."""
    parent_path, _, attribute = layer_path.rpartition(".")
    parent = model.get_submodule(parent_path)
    old = getattr(parent, attribute)
    configs = {id(config): (config, copy.deepcopy(config.__dict__)) for config in (model.config, parent.config)}
    try:
        yield remove_layers(model, layers, layer_path)
    finally:
        setattr(parent, attribute, old)
        _number(old)
        for config, values in configs.values():
            config.__dict__.clear()
            config.__dict__.update(values)


@contextlib.contextmanager
def weights_replaced(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> Iterator[nn.Module]:
    """The model with other values in some parameters, for the length of a block; then it is as it was.

    Args:
        weights: parameter name -> values of the same shape, in any dtype.
    """
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].detach().clone() for name in weights}
    with torch.no_grad():
        try:
            for name, value in weights.items():
                parameters[name].copy_(value)
            yield model
        finally:
            for name, value in before.items():
                parameters[name].copy_(value)


def _numbering(record: LayerRecord) -> str:
    text = f"the model's layers are 0..{record.depth - 1}"
    if record.removed:
        text += (
            f", counted as it is now; layers {', '.join(map(str, record.removed))} of the "
            f"{record.original_depth} that it had were removed already, and those that remain were "
            f"{', '.join(map(str, record.original))}"
        )
    return text


def _number(layers: nn.ModuleList) -> None:
    """Gives each layer its place in the key-value cache."""
    for position, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
