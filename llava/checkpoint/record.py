"""A checkpoint's record of its decoder layers: which were tuned, removed, reverted and healed.

It is `config.visual_region`; only this file names its keys. All layer numbers count the layers before any removal.

    tune_layers    the --tune_layers of the last training, as typed
    layers         the layers that it tuned
    num_layers     the number of layers before any removal
    kept_layers, removed_layers    after a removal
    reverted_layers    layers that have the backbone's weights again
    healed         after a distillation: its layers, teacher, temperature and ce_weight
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KEY = "visual_region"
"""The key in config.json."""


class RecordError(ValueError):
    """Records that cannot be joined."""


@dataclass(frozen=True)
class LayerRecord:
    """The record of one model as it is written (empty if nothing was recorded), and its number of layers now."""

    values: Mapping[str, Any]
    depth: int

    @classmethod
    def of(cls, config: Any) -> "LayerRecord":
        """The record in a config, an object or a dict."""
        if isinstance(config, Mapping):
            return cls(dict(config.get(KEY) or {}), config.get("num_hidden_layers") or 0)
        return cls(dict(getattr(config, KEY, None) or {}), config.num_hidden_layers)

    @property
    def spec(self) -> str | None:
        return self.values.get("tune_layers")

    @property
    def layers(self) -> list[int] | None:
        return self.values.get("layers")

    @property
    def original(self) -> list[int]:
        """The original number of each present layer."""
        return list(self.values.get("kept_layers") or range(self.depth))

    @property
    def original_depth(self) -> int:
        return self.values.get("num_layers") or self.depth + len(self.removed)

    @property
    def kept(self) -> list[int] | None:
        return self.values.get("kept_layers")

    @property
    def removed(self) -> list[int]:
        return list(self.values.get("removed_layers", ()))

    @property
    def reverted(self) -> list[int]:
        return list(self.values.get("reverted_layers", ()))

    @property
    def healed(self) -> Mapping[str, Any] | None:
        return self.values.get("healed")

    @property
    def region(self) -> tuple[int, ...]:
        """The tuned layers that were not reverted, as indices of the present model."""
        tuned = set(self.layers or ()) - set(self.reverted)
        return tuple(position for position, original in enumerate(self.original) if original in tuned)

    def tuned(self, spec: str, layers: Sequence[int]) -> "LayerRecord":
        """The record after a training of `layers`, indices of the present model."""
        original = self.original
        trained = [original[i] for i in layers]
        changes = {"tune_layers": spec, "layers": trained, "num_layers": self.original_depth}
        # Trained layers no longer have the backbone's weights.
        return self._with(changes, reverted=[i for i in self.reverted if i not in trained])

    def cut(self, keep: Sequence[int]) -> "LayerRecord":
        """The record after a removal that keeps `keep`, indices of the present model."""
        original, depth = self.original, self.original_depth
        kept = [original[i] for i in keep]
        removed = sorted(set(range(depth)) - set(kept))
        changes = {"num_layers": depth, "kept_layers": kept, "removed_layers": removed}
        return LayerRecord(dict(self.values) | changes, len(kept))

    def set_back(self, layers: Sequence[int], tuned: Sequence[int] = ()) -> "LayerRecord":
        """The record after layers, indices of the present model, got other weights.

        `layers` got the backbone's again; `tuned` got those of a base in which they are tuned.
        """
        original = self.original
        back = {*self.reverted, *(original[i] for i in layers)} - {original[i] for i in tuned}
        return self._with({"num_layers": self.original_depth}, reverted=sorted(back))

    def after_healing(self, before: "LayerRecord", **settings: Any) -> "LayerRecord":
        """The record after a distillation of this record's layers; the region is the one of `before`."""
        healed = self.layers or []
        back = [i for i in before.reverted if i not in healed]
        return LayerRecord(before._with({"healed": {"layers": list(healed), **settings}}, back).values, self.depth)

    def put(self, config: Any) -> None:
        """Writes the record into a config, an object or a dict."""
        if isinstance(config, dict):
            config[KEY] = dict(self.values)
        else:
            setattr(config, KEY, dict(self.values))

    def _with(self, changes: Mapping[str, Any], reverted: Sequence[int]) -> "LayerRecord":
        values = {name: value for name, value in self.values.items() if name != "reverted_layers"} | dict(changes)
        return LayerRecord(values | ({"reverted_layers": list(reverted)} if reverted else {}), self.depth)


def joint_record(records: Sequence[LayerRecord]) -> LayerRecord:
    """The record of an average of models: the last record, with the layers that any record tuned.

    Raises:
        RecordError: different layers were removed from the models.
    """
    if len({json.dumps(record.kept) for record in records}) > 1:
        raise RecordError("different layers were removed from the models (config.json, visual_region); no average")
    last = records[-1]
    layers = sorted({layer for record in records for layer in record.layers or ()})
    if not layers:
        return last
    specs = dict.fromkeys(record.spec for record in records if record.spec is not None)
    depth = max(record.original_depth for record in records)
    joined = {"layers": layers, "tune_layers": ",".join(specs), "num_layers": depth}
    return LayerRecord(dict(last.values) | joined, last.depth)
