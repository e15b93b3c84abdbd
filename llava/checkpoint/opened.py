"""An opened checkpoint: the object that everything below the command line takes."""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from llava.checkpoint.adapter import Adapter
from llava.checkpoint.record import LayerRecord
from llava.checkpoint.tensors import Tensors
from llava.families import ModelFamily, template_of_config


class CheckpointError(ValueError):
    """A folder that cannot be loaded; the message says what is missing and what to do."""


class Kind(Enum):
    """What a checkpoint holds, and what a training run writes."""

    FULL = "full"
    LORA = "LoRA"
    PROJECTOR = "projector"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint that was opened and found whole. Its files are read when they are asked for, each once.

    Attributes:
        name: the folder or hub id, as the user gave it.
        path: the folder.
        stored: its config.json as it stands; empty for a LoRA without one.
        own: the same in our terms (`stored`, except for transformers' own LLaVA).
        tensors: its weights: a whole model's, or what was trained besides a LoRA or in stage 1.
        adapter: of a LoRA.
        base: what a LoRA or a projector is loaded on, itself opened; None for a full checkpoint.
        hf: a folder of transformers' own LLaVA, whose weights have other names.
        family: the backbone's entry in the families table.
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
        """The checkpoint that holds the language model's weights: the base of a LoRA or a projector, else itself."""
        return self.base or self

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings that a model is built with: its own on top of its base's."""
        if self.base is None:
            return self.own | {"model_type": self.family.model_type}
        # How a run held its frozen base says nothing about how this one is to be loaded.
        own = {name: value for name, value in self.own.items() if name != "quantization_config"}
        return self.base.model_config().to_dict() | own | {"model_type": self.family.model_type}

    def model_config(self, vision_tower: str | None = None) -> Any:
        """A new config object of the family's class; transformers fills in what config.json leaves out.

        Args:
            vision_tower: a tower in place of the recorded one.
        """
        config = self.family.load_config_class().from_dict(self.config)
        if vision_tower:
            config.mm_vision_tower = vision_tower
        return config

    @property
    def depth(self) -> int:
        """The number of decoder layers."""
        return self.model_config().num_hidden_layers

    @property
    def record(self) -> LayerRecord:
        """What the checkpoint records of its decoder layers."""
        return LayerRecord.of(self.model_config())

    @property
    def tower(self) -> str | None:
        """The vision tower that the config names: a folder or a hub id; None for a plain language model."""
        return self.config.get("mm_vision_tower")

    @property
    def template(self) -> str:
        """The conversation template that it is asked in: the recorded one, else its family's."""
        return template_of_config(self.config)

    @property
    def tokenizer_folder(self) -> Path:
        """The folder with its tokenizer: its own, or its base's."""
        own = self.base is None or (self.path / "tokenizer_config.json").is_file()
        return self.path if own else self.base.path

    @property
    def folders(self) -> list[Path]:
        """Every folder that loading reads, for those who must not write there: its own, its base's, its tower's."""
        parts = [self.path, *([self.base.path] if self.base else []), *([Path(self.tower)] if self.tower else [])]
        return [path for path in parts if path.exists()]

    @cached_property
    def stored_dtype(self) -> torch.dtype:
        """The dtype that the language model's weights have on disk.

        transformers' `dtype="auto"` would take the config's word for it, and a LoRA's config says how its run
        computed: a float16 base would be rounded to bfloat16 before the LoRA is added.
        """
        found = (s.torch_dtype for s in self.whole.tensors if "layers." in s.name and "vision" not in s.name)
        # A base that is stored in 8 or 4 bits still has its norms in the dtype it computes in.
        return next((dtype for dtype in found if dtype.is_floating_point), torch.float32)
