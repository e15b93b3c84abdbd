"""Remove decoder layers. One function owns every coupled edit."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from visual_region.layers import LayerSelection

PROVENANCE = "visual_region"
"""Key in config.json under which selections and removals are recorded, in the numbering of the unpruned model."""
_PER_LAYER_LISTS = ("layer_types",)


class SurgeryError(ValueError):
    """Layers that cannot be removed."""


def remove_layers(model: nn.Module, layers: Sequence[int], layer_path: str) -> nn.Module:
    """Removes decoder layers in place.

    The edits that belong together: the module list, each remaining attention's `layer_idx` (its place in the
    key-value cache), `num_hidden_layers`, per-layer lists of the config, and the record of what was removed.

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
    wrong = sorted({i for i in layers if not 0 <= i < len(old)})
    if wrong:
        raise SurgeryError(f"cannot remove layers {wrong}: the model's layers are 0..{len(old) - 1}")
    gone = set(layers)
    if len(gone) >= len(old):
        raise SurgeryError(f"cannot remove all {len(old)} layers")
    keep = [i for i in range(len(old)) if i not in gone]

    setattr(parent, attribute, nn.ModuleList([old[i] for i in keep]))
    _number(getattr(parent, attribute))
    for config in {id(c): c for c in (model.config, parent.config)}.values():
        _cut_config(config, keep)
    return model


def _cut_config(config: Any, keep: list[int]) -> None:
    depth = config.num_hidden_layers
    record = dict(getattr(config, PROVENANCE, None) or {})
    kept_before = record.get("kept_layers") or list(range(depth))
    kept = [kept_before[i] for i in keep]
    original_depth = len(kept_before) + len(record.get("removed_layers", []))
    for name in _PER_LAYER_LISTS:
        values = getattr(config, name, None)
        if values is not None and len(values) == depth:
            setattr(config, name, [values[i] for i in keep])
    config.num_hidden_layers = len(keep)
    record |= {
        "num_layers": record.get("num_layers", original_depth),
        "kept_layers": kept,
        "removed_layers": sorted(set(range(original_depth)) - set(kept)),
    }
    setattr(config, PROVENANCE, record)


def region_now(config: Any) -> tuple[int, ...]:
    """The tuned layers that a config records, as indices of the model as it stands now (empty: none recorded)."""
    record = getattr(config, PROVENANCE, None) or {}
    kept = record.get("kept_layers") or list(range(config.num_hidden_layers))
    tuned = set(record.get("layers", ()))
    return tuple(position for position, original in enumerate(kept) if original in tuned)


def lowest_outside(scores: Sequence[float], count: int, protected: Sequence[int]) -> tuple[int, ...]:
    """The `count` layers of lowest score that are not protected, sorted by index.

    Raises:
        SurgeryError: fewer lie outside.
    """
    free = [i for i in range(len(scores)) if i not in set(protected)]
    if count > len(free):
        raise SurgeryError(
            f"cannot remove {count} layers: {len(free)} of {len(scores)} lie outside the protected region"
        )
    return tuple(sorted(sorted(free, key=lambda i: (scores[i], i))[:count]))


def record_selection(config: Any, selection: LayerSelection) -> None:
    """Writes a selection into the config, in the numbering of the model before any removal."""
    record = dict(getattr(config, PROVENANCE, None) or {})
    kept = record.get("kept_layers") or list(range(selection.num_layers))
    record |= {
        "tune_layers": selection.spec,
        "layers": [kept[i] for i in selection],
        "num_layers": record.get("num_layers", selection.num_layers),
    }
    setattr(config, PROVENANCE, record)


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


def _number(layers: nn.ModuleList) -> None:
    """Gives each layer its place in the key-value cache."""
    for position, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
