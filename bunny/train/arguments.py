"""Bunny's training flags (upstream: the dataclasses of bunny/train/train.py): llava's, with other defaults."""

from dataclasses import dataclass, field
from typing import ClassVar

import llava.train.arguments
from llava.families import ModelFamily
from llava.train.arguments import DataArguments, TrainingArguments

MODEL_TYPES = {
    "phi-1.5": "bunny-phi",
    "phi-2": "bunny-phi",
    "phi-3": "bunny-phi3",
    "stablelm-2": "bunny-stablelm",
    "qwen1.5-1.8b": "bunny-qwen2",
    "llama3-8b": "bunny-llama",
}
"""Values of `--model_type` -> family. The model's own config decides; the flag is checked against it."""


def check_model_type(model_type: str | None, family: ModelFamily) -> None:
    """Raises `ValueError` for an unknown `--model_type`, or one that is not what the model is."""
    if model_type is None:
        return
    if model_type == "minicpm":
        raise ValueError("--model_type minicpm: it runs code that its repository brings along and is not supported")
    if model_type not in MODEL_TYPES:
        raise ValueError(f"unknown --model_type {model_type!r}; allowed: {', '.join(MODEL_TYPES)}")
    if MODEL_TYPES[model_type] != family.model_type:
        fitting = ", ".join(name for name, value in MODEL_TYPES.items() if value == family.model_type) or "none"
        raise ValueError(
            f"--model_type {model_type} does not fit: the model is a {family.model_type} (on {family.backbone_type}); "
            f"values that fit it: {fitting}; or leave the flag out"
        )


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
