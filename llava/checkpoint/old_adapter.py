"""A LoRA folder's adapter, with layers renumbered or left out. Nothing is dropped that was not asked for."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from visual_region.surgery import SurgeryError, layer_of

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
FINGERPRINT = "base_fingerprint.json"
_PREFIX = "base_model.model."
_BY_LAYER = ("rank_pattern", "alpha_pattern", "layer_replication", "target_parameters")


@dataclass(frozen=True)
class Adapter:
    """`config` is adapter_config.json; `tensors` by PEFT's names ("base_model.model.model.layers.0...")."""

    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    @classmethod
    def read(cls, folder: Path) -> "Adapter":
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        file = next(folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file())
        if file.suffix == ".safetensors":
            return cls(config, load_file(file))
        return cls(config, torch.load(file, map_location="cpu", weights_only=True))

    @property
    def modules(self) -> list[str]:
        """Full names of the adapted modules, in the model's own naming."""
        return sorted({name.removeprefix(_PREFIX).split(".lora_")[0] for name in self.tensors if ".lora_" in name})

    def layers(self, layer_path: str) -> tuple[int, ...]:
        """The decoder layers that the adapter changes."""
        found = {layer_of(name, layer_path) for name in self.tensors} - {None}
        return tuple(sorted(found))

    def renamed(self, rename: Callable[[str], str | None]) -> "Adapter":
        """The adapter with each tensor under its new name, without those whose new name is None.

        The targets become the list of full module names: an expression, or `layers_to_transform`, would have to be
        understood to be renumbered, and PEFT adapts other layers than were meant where either is wrong.

        Raises:
            SurgeryError: settings by layer that cannot be carried over, or no adapted module is left.
        """
        names = {name: rename(name) for name in self.tensors}
        moved = any(new not in (None, old) for old, new in names.items())
        told = [key for key in _BY_LAYER if self.config.get(key)]
        if told and moved:
            raise SurgeryError(
                f"the adapter's {', '.join(told)} name layers and cannot be renumbered; leave --base-output out to "
                "write one merged folder"
            )
        left = Adapter(self.config, {new: self.tensors[old] for old, new in names.items() if new is not None})
        if not left.modules:
            raise SurgeryError("no adapted layer would remain")
        changes = {"layers_to_transform": None, "layers_pattern": None, "exclude_modules": None}
        return Adapter(self.config | changes | {"target_modules": left.modules}, left.tensors)

    def write(self, folder: Path, base: str | None = None) -> None:
        """Writes weights and config; `base` replaces the recorded base."""
        config = self.config | ({} if base is None else {"base_model_name_or_path": base})
        tensors = {name: tensor.contiguous().clone() for name, tensor in self.tensors.items()}
        save_file(tensors, folder / ADAPTER_WEIGHTS[0], {"format": "pt"})
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_renamed_rest(source: Path, target: Path, rename: Callable[[str], str | None]) -> None:
    """Copies what lies beside an adapter and names tensors: what trained besides it, and its base's fingerprint."""
    rest = source / "non_lora_trainables.bin"
    if rest.is_file():
        tensors = torch.load(rest, map_location="cpu", weights_only=True)
        kept = {new: value for name, value in tensors.items() if (new := rename(name)) is not None}
        torch.save(kept, target / rest.name)
    fingerprint = target / FINGERPRINT
    if fingerprint.is_file():
        values = json.loads(fingerprint.read_text(encoding="utf-8"))
        values["tensors"] = {
            new: value for name, value in values["tensors"].items() if (new := rename(name)) is not None
        }
        fingerprint.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
