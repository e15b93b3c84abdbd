"""An opened checkpoint, as `open_checkpoint` returns it."""

import json
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from llava.checkpoint.adapter import Adapter
from llava.checkpoint.record import LayerRecord
from llava.checkpoint.tensors import Tensors
from llava.conversation import OWN_TEMPLATE
from llava.families import ModelFamily, template_of_config


class CheckpointError(ValueError):
    """A folder that cannot be loaded."""


class Kind(Enum):
    """What a checkpoint holds."""

    FULL = "full"
    LORA = "LoRA"
    PROJECTOR = "projector"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An opened checkpoint; its weights are read on demand, each file once.

    Attributes:
        name: the folder or hub id, as the user gave it.
        stored: its config.json; empty for a LoRA without one.
        own: the same in our terms (`stored`, except for transformers' own LLaVA).
        tensors: its weights: a whole model's, or the weights trained in stage 1 or together with a LoRA.
        base: the base of a LoRA or a projector; None for a full checkpoint.
        hf: whether it is transformers' own LLaVA, whose weights have other names.
    """

    name: str
    path: Path
    kind: Kind
    stored: dict[str, Any]
    own: dict[str, Any]
    tensors: Tensors
    family: ModelFamily
    adapter: Adapter | None = None
    base: "Checkpoint | None" = None
    hf: bool = False

    @property
    def whole(self) -> "Checkpoint":
        """The checkpoint with the language model's weights: the base of a LoRA or a projector, else itself."""
        return self.base or self

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings that a model is built with: its own override its base's."""
        if self.base is None:
            return self.own | {"model_type": self.family.model_type}
        # How training quantised the frozen base does not decide how it is loaded now.
        own = {name: value for name, value in self.own.items() if name != "quantization_config"}
        return self.base.model_config().to_dict() | own | {"model_type": self.family.model_type}

    def model_config(self, vision_tower: str | None = None) -> Any:
        """A new config object of the family's class; `vision_tower` replaces the recorded tower."""
        config = self.family.load_config_class().from_dict(self.config)
        if vision_tower:
            config.mm_vision_tower = vision_tower
        return config

    @property
    def depth(self) -> int:
        return self.model_config().num_hidden_layers

    @property
    def record(self) -> LayerRecord:
        return LayerRecord.of(self.model_config())

    @property
    def tower(self) -> str | None:
        """The recorded vision tower, a folder or a hub id; None for a plain language model."""
        return self.config.get("mm_vision_tower")

    @property
    def template(self) -> str:
        """The name of the conversation template: the recorded one, else its family's."""
        return template_of_config(self.config)

    @cached_property
    def question_template(self) -> str:
        """The name of the template for questions: `template`, or a plain language model's `OWN_TEMPLATE`.

        Only a template of ours can be trained on: it says which tokens are an answer.
        """
        plain = self.own.get("model_type") == self.family.backbone_type and not self.tower
        if self.kind is not Kind.FULL or not plain or "conversation_template" in self.own:
            return self.template
        folder = self.tokenizer_folder
        settings = folder / "tokenizer_config.json"
        stored = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
        own = (folder / "chat_template.jinja").is_file() or bool(stored.get("chat_template"))
        return OWN_TEMPLATE if own else self.template

    @property
    def tokenizer_folder(self) -> Path:
        own = self.base is None or (self.path / "tokenizer_config.json").is_file()
        return self.path if own else self.base.path

    @property
    def folders(self) -> list[Path]:
        """Every folder that loading reads, and nothing may be written to: its own, its base's, its tower's."""
        parts = [self.path, *([self.base.path] if self.base else []), *([Path(self.tower)] if self.tower else [])]
        return [path for path in parts if path.exists()]

    @cached_property
    def stored_dtype(self) -> torch.dtype:
        """The dtype of the language model's stored weights.

        transformers' `dtype="auto"` uses the config's dtype, which for a LoRA is the dtype of its training: a float16
        base would be rounded to bfloat16 before the LoRA is added.
        """
        found = (s.torch_dtype for s in self.whole.tensors if "layers." in s.name and "vision" not in s.name)
        # A base stored in 8 or 4 bits still has its norms in the compute dtype.
        return next((dtype for dtype in found if dtype.is_floating_point), torch.float32)
