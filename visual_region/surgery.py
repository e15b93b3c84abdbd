"""Remove decoder layers, or set them back to the backbone's. One place owns every coupled edit.

`LayerCut` decides what a removal means: which index a layer gets, what its tensors are called then, what changes in
the config. Models in memory and folders on disk both ask it.
"""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from visual_region.layers import LayerSelection, LayerSelectionError

PROVENANCE = "visual_region"
"""Key in config.json under which selections and removals are recorded, in the numbering of the unpruned model."""
_PER_LAYER_LISTS = ("layer_types",)
_PEFT_PREFIX = "base_model.model."
"""What PEFT puts before the names of the model that it wraps."""


class SurgeryError(ValueError):
    """Layers that cannot be removed or set back."""


@dataclass(frozen=True)
class LayerCut:
    """A removal: `keep` are the indices that stay, sorted, of a model of `depth` layers."""

    keep: tuple[int, ...]
    depth: int

    @classmethod
    def without(cls, layers: Sequence[int], config: Any) -> "LayerCut":
        """The cut that removes `layers`, indices of the model as it stands now.

        Args:
            config: object or dict; read are `num_hidden_layers` and what was removed before.

        Raises:
            SurgeryError: indices that do not exist, or none would remain.
        """
        depth = _get(config, "num_hidden_layers")
        wrong = sorted({i for i in layers if not 0 <= i < depth})
        if wrong:
            raise SurgeryError(f"cannot remove layers {wrong}: {_numbering(config)}")
        keep = tuple(i for i in range(depth) if i not in set(layers))
        if not keep:
            raise SurgeryError(f"cannot remove all {depth} layers")
        return cls(keep, depth)

    @property
    def removed(self) -> tuple[int, ...]:
        return tuple(i for i in range(self.depth) if i not in set(self.keep))

    def rename(self, name: str, *layer_paths: str) -> str | None:
        """The name of a tensor or module after the cut, with or without PEFT's prefix; None where it goes.

        Args:
            layer_paths: where the decoder layers are; several where formats differ in that.
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
        """The config fields that change: depth, per-layer lists, and the record of what was removed."""
        kept = [original_layers(config)[i] for i in self.keep]
        record = _record(config)
        original_depth = record.get("num_layers") or len(original_layers(config)) + len(
            record.get("removed_layers", ())
        )
        changes: dict[str, Any] = {
            name: [values[i] for i in self.keep]
            for name in _PER_LAYER_LISTS
            if (values := _get(config, name)) is not None and len(values) == self.depth
        }
        changes["num_hidden_layers"] = len(self.keep)
        changes[PROVENANCE] = record | {
            "num_layers": original_depth,
            "kept_layers": kept,
            "removed_layers": sorted(set(range(original_depth)) - set(kept)),
        }
        return changes


def layer_of(name: str, layer_path: str) -> int | None:
    """The decoder layer that a tensor or module belongs to, by its full name; None for all else.

    Anchored at the family's `layer_path` ("model.layers"): a vision tower has `layers` too.
    """
    match = re.match(rf"{re.escape(layer_path)}\.(\d+)\.", name.removeprefix(_PEFT_PREFIX))
    return int(match.group(1)) if match else None


def original_layers(config: Any) -> list[int]:
    """For each layer as it stands now, its index before any removal."""
    return list(_record(config).get("kept_layers") or range(_get(config, "num_hidden_layers")))


def region_now(config: Any) -> tuple[int, ...]:
    """The tuned layers that a config (object or dict) records, as indices of the model as it stands now.

    Layers that were set back to the backbone's weights are no longer among them. Empty: none recorded.
    """
    record = _record(config)
    tuned = set(record.get("layers", ())) - set(record.get("reverted_layers", ()))
    return tuple(position for position, original in enumerate(original_layers(config)) if original in tuned)


def layers_named(spec: str, config: Any) -> tuple[int, ...]:
    """The layers that `spec` names in the model as it stands now.

    Raises:
        LayerSelectionError: also says what was removed before, for whoever means layers of the unpruned model.
    """
    try:
        return LayerSelection.parse(spec, _get(config, "num_hidden_layers")).layers
    except LayerSelectionError as error:
        if removed_before(config):
            raise LayerSelectionError(f"{error}\n  {_numbering(config)}") from error
        raise


def layers_told(layers: Sequence[int], config: Any) -> str:
    """Layers as the model stands now, and, where some were removed before, what they were in the unpruned model."""
    now, original = list(layers), original_layers(config)
    told = f"layers {', '.join(map(str, now))}"
    if removed_before(config):
        told += f" (of the unpruned model {', '.join(str(original[i]) for i in now)})"
    return told


def removed_before(config: Any) -> list[int]:
    """What was removed already, in the numbering of the unpruned model."""
    return list(_record(config).get("removed_layers", ()))


def reverted_record(config: Any, layers: Sequence[int]) -> dict[str, Any]:
    """The record with `layers` (as the model stands now) noted as set back."""
    original = original_layers(config)
    record = _record(config)
    depth = record.get("num_layers") or len(original)
    back = sorted({*record.get("reverted_layers", ()), *(original[i] for i in layers)})
    return record | {"num_layers": depth, "reverted_layers": back}


def record_selection(config: Any, selection: LayerSelection) -> None:
    """Writes a selection into the config, in the numbering of the model before any removal."""
    record = _record(config)
    kept = record.get("kept_layers") or list(range(selection.num_layers))
    record |= {
        "tune_layers": selection.spec,
        "layers": [kept[i] for i in selection],
        "num_layers": record.get("num_layers", selection.num_layers),
    }
    # Layers that train are the backbone's no longer.
    back = [i for i in record.get("reverted_layers", ()) if i not in record["layers"]]
    record.pop("reverted_layers", None)
    setattr(config, PROVENANCE, record | ({"reverted_layers": back} if back else {}))


def lowest_outside(scores: Sequence[float], count: int, protected: Sequence[int]) -> tuple[int, ...]:
    """The `count` layers of lowest score that are not protected, sorted by index.

    Raises:
        SurgeryError: fewer lie outside.
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
    key-value cache), and what `LayerCut` changes in the config.

    Args:
        layers: indices as the model stands now.
        layer_path: attribute path of the decoder layers ("model.layers").

    Returns:
        the same model. `config.visual_region` then holds `kept_layers` and `removed_layers` in the numbering of the
        model before its first removal.

    Raises:
        SurgeryError: indices that do not exist, none would remain, or adapters are still on the model.
    """
    if hasattr(model, "peft_config"):
        raise SurgeryError("the model carries LoRA adapters; merge them before removing layers")
    parent_path, _, attribute = layer_path.rpartition(".")
    parent = model.get_submodule(parent_path)
    old = getattr(parent, attribute)
    cut = LayerCut.without(layers, parent.config)
    setattr(parent, attribute, nn.ModuleList([old[i] for i in cut.keep]))
    _number(getattr(parent, attribute))
    for config in {id(c): c for c in (model.config, parent.config)}.values():
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


def _numbering(config: Any) -> str:
    depth, gone = _get(config, "num_hidden_layers"), removed_before(config)
    told = f"the model's layers are 0..{depth - 1}"
    if gone:
        told += (
            f", counted as it stands now; layers {', '.join(map(str, gone))} of the "
            f"{_record(config)['num_layers']} that it had were removed already, and those that remain were "
            f"{', '.join(map(str, original_layers(config)))}"
        )
    return told


def _record(config: Any) -> dict[str, Any]:
    return dict(_get(config, PROVENANCE) or {})


def _get(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def _number(layers: nn.ModuleList) -> None:
    """Gives each layer its place in the key-value cache."""
    for position, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
