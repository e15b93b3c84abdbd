"""Loading under Bunny's signature (upstream: bunny/model/builder.py); the work is llava's."""

from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

import llava.model.builder
from bunny.model.model_types import check_model_type
from llava.checkpoint.old_folder import read_checkpoint
from llava.conversation import get_template
from llava.families import ModelFamily, family_of, template_of_config
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
    """Loads any checkpoint of Bunny: full, LoRA, projector-only, merged or pruned, with a trained tower or without.

    Files and config decide what it is. Further arguments are those of `llava.model.builder.load_pretrained_model`.

    Args:
        model_name: upstream's; accepted and not used.
        model_type: upstream's, such as "phi-2"; checked against the checkpoint, and may be left out.

    Returns:
        `(tokenizer, model, image_processor, context_len)`. As upstream's callers expect, `model.generate` returns the
        prompt in front of the new tokens, and tokenizer and model stop where the template's turns end.

    Raises:
        ValueError: `model_type` is not what the checkpoint is, or the checkpoint is not one of Bunny.
    """
    check_checkpoint(model_path, model_base, model_type)
    tokenizer, model, processor, context = llava.model.builder.load_pretrained_model(
        model_path, model_base, model_name, load_8bit, load_4bit, device_map, device, **kwargs
    )
    end_turns_with(get_template(template_of_config(model.config)), tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generate_returns_prompt = True
    return tokenizer, model, processor, context


def check_checkpoint(model_path: str, model_base: str | None, model_type: str | None) -> ModelFamily:
    """The family of a checkpoint, by its config or its base's; no weights are loaded."""
    config = read_checkpoint(model_path).config
    if "model_type" not in config and model_base is not None:
        config = read_checkpoint(model_base).config
    family = family_of(config, "bunny")
    if family.package != "bunny":
        raise ValueError(f"{model_path} is a {family.model_type}, not a Bunny; load it with llava.model.builder")
    check_model_type(model_type, family)
    return family
