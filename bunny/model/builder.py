"""Loading with Bunny's signature (upstream: bunny/model/builder.py); llava does the work."""

from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

import llava.model.builder
from bunny.model.model_types import check_model_type
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import Checkpoint
from llava.conversation import get_template
from llava.tokenization import end_turns_with


def load_pretrained_model(
    model_path: str,
    model_base: str | None = None,
    model_name: str | None = None,
    model_type: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    device: str = "cuda",
    **kwargs: Any,
) -> tuple[PreTrainedTokenizerBase, Any, BaseImageProcessor | None, int]:
    """As `llava.model.builder.load_checkpoint`, for a Bunny; raises `ValueError` for another checkpoint.

    `model_name` is not used; `model_type`, such as "phi-2", is optional and only checked. As upstream's callers expect,
    `model.generate` returns the prompt too, and tokenizer and model stop at the template's end of turn.
    """
    checkpoint = open_checkpoint(model_path, model_base, package="bunny")
    check_checkpoint(checkpoint, model_type)
    tokenizer, model, processor, context = llava.model.builder.load_checkpoint(
        checkpoint, load_8bit=load_8bit, load_4bit=load_4bit, device_map=device_map, device=device, **kwargs
    )
    end_turns_with(get_template(checkpoint.template), tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generate_returns_prompt = True
    return tokenizer, model, processor, context


def check_checkpoint(checkpoint: Checkpoint, model_type: str | None) -> None:
    """Raises `ValueError` for a checkpoint that is not a Bunny, or not of the given `--model_type`."""
    if checkpoint.family.package != "bunny":
        raise ValueError(
            f"{checkpoint.name} is a {checkpoint.family.model_type}, not a Bunny; load it with llava.model.builder"
        )
    check_model_type(model_type, checkpoint.family)
