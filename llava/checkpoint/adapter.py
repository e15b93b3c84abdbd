"""A LoRA folder's adapter: its settings and tensors, read, renumbered, added up and written."""

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
"""What PEFT puts before the names of the model that it wraps."""
_BY_LAYER = ("rank_pattern", "alpha_pattern", "layer_replication", "target_parameters")
_LAYER = re.compile(r"\.layers\.(\d+)\.")


class AdapterError(ValueError):
    """An adapter that cannot be renumbered, or whose weights cannot be added to its base's."""


def strip_wrapper_prefix(name: str) -> str:
    """`base_model.model.model.x`, as PEFT names it, to `model.x`."""
    return name.removeprefix(PEFT_PREFIX)


@dataclass(frozen=True)
class Adapter:
    """An adapter that was opened: its settings, and its tensors by PEFT's names.

    Attributes:
        config: adapter_config.json.
        tensors: "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" and the like.
    """

    config: Mapping[str, Any]
    tensors: Tensors

    @cached_property
    def modules(self) -> list[str]:
        """Full names of the adapted modules, in the model's own naming."""
        names = (strip_wrapper_prefix(name) for name in self.tensors.by_name)
        return sorted({name.split(".lora_")[0].replace(".base_layer", "") for name in names if ".lora_" in name})

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The decoder layers that the adapter changes. A LoRA in a vision tower is not supported."""
        found = (_LAYER.search(name) for name in self.tensors.by_name if "vision_tower" not in name)
        return tuple(sorted({int(match.group(1)) for match in found if match}))

    def write(self, folder: Path, rename: Callable[[str], str | None] = str, base: str | None = None) -> None:
        """Writes the adapter with each tensor under its new name, without those whose new name is None.

        The targets become the list of full module names: an expression, or `layers_to_transform`, would have to be
        read to be renumbered, and PEFT adapts other layers than were meant if either is wrong.

        Args:
            base: replaces the recorded base.

        Raises:
            AdapterError: settings per layer that cannot be renumbered, or no adapted module is left.
        """
        targets = self.check_renaming(rename)
        changes = {"layers_to_transform": None, "layers_pattern": None, "exclude_modules": None}
        config = dict(self.config) | changes | {"target_modules": targets}
        if base is not None:
            config["base_model_name_or_path"] = base
        named = {stored.name: rename(stored.name) for stored in self.tensors}
        tensors = {new: self.tensors[old].tensor().contiguous().clone() for old, new in named.items() if new}
        save_file(tensors, folder / ADAPTER_WEIGHTS[0], {"format": "pt"})
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def check_renaming(self, rename: Callable[[str], str | None]) -> list[str]:
        """The modules that are left after a renaming; raises `AdapterError` as `write` does."""
        names = {name: rename(name) for name in self.tensors.by_name}
        moved = any(new not in (None, old) for old, new in names.items())
        told = [key for key in _BY_LAYER if self.config.get(key)]
        if told and moved:
            raise AdapterError(
                f"the adapter's {', '.join(told)} name layers and cannot be renumbered; leave --base-output out to "
                "write one merged folder"
            )
        left = sorted(
            {strip_wrapper_prefix(new).split(".lora_")[0] for new in names.values() if new and ".lora_" in new}
        )
        if not left:
            raise AdapterError("no adapted layer would remain")
        return left

    def check_addable(self, path: Path) -> None:
        """Raises `AdapterError` for a kind of adapter whose weights are not a sum of base and low-rank product."""
        unknown = [n for n in ("use_dora", "alora_invocation_tokens", "layer_replication") if self.config.get(n)]
        if self.config.get("peft_type", "LORA") != "LORA" or unknown:
            kind = ", ".join(unknown) or self.config.get("peft_type")
            raise AdapterError(
                f"{path} is an adapter with {kind}, whose weights are not a sum; merge it and use the merged checkpoint"
            )

    def delta(self, module: str) -> torch.Tensor:
        """What the adapter adds to a module's weight: scale * B A, float32, in the weight's own shape."""
        a, b = (self.tensors[self._stored_name(module, part)].tensor().float() for part in ("lora_A", "lora_B"))
        delta = (b @ a) * self.scale(module)
        return delta.T if self.config.get("fan_in_fan_out") else delta

    def scale(self, module: str) -> float:
        """alpha / r of a module, or alpha / sqrt(r) for rank-stabilised LoRA (PEFT's rule, its patterns included)."""
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
