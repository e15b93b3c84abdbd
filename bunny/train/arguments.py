"""Bunny's training flags (upstream: the dataclasses of bunny/train/train.py): llava's, with other defaults."""

from dataclasses import dataclass, field
from typing import ClassVar

import llava.train.arguments
from bunny.model.model_types import MODEL_TYPES, check_model_type
from llava.families import ModelFamily
from llava.train.arguments import DataArguments, TrainingArguments


@dataclass
class ModelArguments(llava.train.arguments.ModelArguments):
    package: ClassVar[str] = "bunny"

    model_type: str | None = field(
        default=None, metadata={"help": f"{' | '.join(MODEL_TYPES)}; default: what the model's config says"}
    )
    version: str | None = field(
        default=None, metadata={"help": "conversation template; default: the one of the backbone, plain in stage 1"}
    )
    mm_vision_select_layer: int | None = field(default=-2)
    mm_projector_type: str | None = field(default="mlp2x_gelu")
    use_s2: bool = field(default=False, metadata={"help": "S2: the tower's features at several image sizes"})
    s2_scales: str | None = field(
        default=None, metadata={"help": "sizes for S2; default: 1, 2, 3 times the tower's (384,768,1152)"}
    )

    def check_family(self, family: ModelFamily) -> None:
        check_model_type(self.model_type, family)

    def template_name(self, family: ModelFamily) -> str:
        if self.version is None:
            return "plain" if self.tune_mm_mlp_adapter else family.template
        return self.version


ARGUMENTS = (ModelArguments, DataArguments, TrainingArguments)
