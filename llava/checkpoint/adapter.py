"""A LoRA adapter: its settings and tensors, read, renumbered, merged and written."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from llava.checkpoint.tensors import Tensors

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
NON_LORA = "non_lora_trainables.bin"
PEFT_PREFIX = "base_model.model."
"""PEFT's prefix for the names of the wrapped model."""
_BY_LAYER = ("rank_pattern", "alpha_pattern", "layer_replication", "target_parameters")
_LAYER = re.compile(r"\.layers\.(\d+)\.")


class AdapterError(ValueError):
    """An adapter that cannot be renumbered or merged."""


def strip_wrapper_prefix(name: str) -> str:
    """`base_model.model.model.x`, as PEFT names it, to `model.x`."""
    return name.removeprefix(PEFT_PREFIX)


@dataclass(frozen=True)
class Adapter:
    """An opened adapter: its adapter_config.json, and its tensors by PEFT's names."""

    config: Mapping[str, Any]
    tensors: Tensors

    @cached_property
    def modules(self) -> list[str]:
        """Full names of the adapted modules, without PEFT's prefix."""
        names = (strip_wrapper_prefix(name) for name in self.tensors.by_name)
        return sorted({name.split(".lora_")[0].replace(".base_layer", "") for name in names if ".lora_" in name})

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The decoder layers that the adapter changes; a LoRA in a vision tower is not supported."""
        found = (_LAYER.search(name) for name in self.tensors.by_name if "vision_tower" not in name)
        return tuple(sorted({int(match.group(1)) for match in found if match}))

    def write(self, folder: Path, rename: Callable[[str], str | None] = str, base: str | None = None) -> None:
        """Writes the adapter with renamed tensors; those whose new name is None are left out.

        The targets become the list of full module names: renumbering an expression or `layers_to_transform` is error
        prone, and PEFT would silently adapt the wrong layers. `base` replaces the recorded base.

        Raises:
            AdapterError: settings per layer that cannot be renumbered, or no adapted module is left.
        """
        config = dict(self.config) | {"target_modules": self.check_renaming(rename)}
        config |= {"layers_to_transform": None, "layers_pattern": None, "exclude_modules": None}
        if base is not None:
            config["base_model_name_or_path"] = base
        named = {stored.name: rename(stored.name) for stored in self.tensors}
        tensors = {new: self.tensors[old].tensor().contiguous().clone() for old, new in named.items() if new}
        save_file(tensors, folder / ADAPTER_WEIGHTS[0], {"format": "pt"})
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def check_renaming(self, rename: Callable[[str], str | None]) -> list[str]:
        """The module names after a renaming; raises `AdapterError` as `write` does."""
        names = {name: rename(name) for name in self.tensors.by_name}
        per_layer = [key for key in _BY_LAYER if self.config.get(key)]
        if per_layer and any(new not in (None, old) for old, new in names.items()):
            raise AdapterError(
                f"the adapter's {', '.join(per_layer)} name layers and cannot be renumbered; leave --base-output out "
                "to write one merged folder"
            )
        left = {strip_wrapper_prefix(new).split(".lora_")[0] for new in names.values() if new and ".lora_" in new}
        if not left:
            raise AdapterError("no adapted layer would remain")
        return sorted(left)

    def check_addable(self, path: Path) -> None:
        """Raises `AdapterError` if the adapted weights are not the sum of the base and a low-rank product."""
        unknown = [n for n in ("use_dora", "alora_invocation_tokens", "layer_replication") if self.config.get(n)]
        if self.config.get("peft_type", "LORA") != "LORA" or unknown:
            kind = ", ".join(unknown) or self.config.get("peft_type")
            raise AdapterError(
                f"{path} is an adapter with {kind}, whose weights are not a sum; merge it and use the merged checkpoint"
            )

    def delta(self, module: str) -> torch.Tensor:
        """What the adapter adds to a module's weight: scale * B A, float32, in the weight's shape."""
        a, b = (self.tensors[self._stored_name(module, part)].tensor().float() for part in ("lora_A", "lora_B"))
        delta = (b @ a) * self.scale(module)
        return delta.T if self.config.get("fan_in_fan_out") else delta

    def scale(self, module: str) -> float:
        """alpha / r of a module, or alpha / sqrt(r) for rank-stabilised LoRA (PEFT's rule, with its patterns)."""
        rank = self._setting(module, "rank_pattern", "r")
        alpha = self._setting(module, "alpha_pattern", "lora_alpha")
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def _setting(self, module: str, patterns: str, default: str) -> float:
        for pattern, value in (self.config.get(patterns) or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        return self.config[default]

    def _stored_name(self, module: str, part: str) -> str:
        spellings = (
            f"{prefix}{module}{level}.{part}.weight" for prefix in (PEFT_PREFIX, "") for level in ("", ".base_layer")
        )
        return next(name for name in spellings if name in self.tensors)
