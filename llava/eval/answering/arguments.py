"""From the flags of the evaluation programs to a checkpoint, a model and an answerer."""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.identity import file_state
from llava.checkpoint.opened import Checkpoint
from llava.conversation import OWN_TEMPLATE, SeparatorStyle, get_template
from llava.data.feature_cache import FeatureCache
from llava.dtypes import DTYPES
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.errors import EvaluationError
from llava.files import sha256_of
from llava.model.builder import checked_device, load_checkpoint, load_tokenizer
from llava.tokenization import check_template

Loaded = tuple[PreTrainedTokenizerBase, Any, Any]
"""Tokenizer, model and image processor."""


def open_model(args: argparse.Namespace) -> Checkpoint:
    """The checkpoint of --model-path and --model-base, opened and checked once for the whole program."""
    checked_device(args.device)
    return open_checkpoint(args.model_path, args.model_base, flag="--model-path")


def template_name(args: argparse.Namespace, checkpoint: Checkpoint) -> str:
    """The template of conversations with answers: of the flags, else of the checkpoint."""
    return args.conv_mode or checkpoint.template


def question_template(args: argparse.Namespace, checkpoint: Checkpoint) -> str | None:
    """The template of questions: of the flags, else of the checkpoint (maybe `OWN_TEMPLATE`); None for raw prompts."""
    return None if args.raw_prompt else args.conv_mode or checkpoint.question_template


def check_questions_template(name: str, checkpoint: Checkpoint) -> None:
    """Refuses, before weights are loaded, a template that training refuses; warns of one for captions.

    Raises:
        TemplateError: the tokenizer does not have the template's end of turn.
    """
    check_template(name, load_tokenizer(checkpoint.tokenizer_folder), "--conv-mode")
    if get_template(name).sep_style is SeparatorStyle.PLAIN:
        note = f"warning: {name} is the template of captions: it has no turns, and answers end at no token of their own"
        print(f"{note}; for questions, give --conv-mode", file=sys.stderr)


def check_tower(checkpoint: Checkpoint, having: str, without: str) -> None:
    """Raises `EvaluationError` if the checkpoint has no tower; `having` images, and what to give `without` them."""
    if not checkpoint.tower:
        remedy = f"give a vision-language checkpoint, or {without} without images"
        raise EvaluationError(f"the {having} have images, but {checkpoint.name} has no vision tower; {remedy}")


def load(args: argparse.Namespace, checkpoint: Checkpoint, sees: bool = True) -> Loaded:
    """Tokenizer, model and image processor; without `sees` neither tower nor projector is built."""
    return load_checkpoint(
        checkpoint,
        device=args.device,
        dtype=DTYPES[args.dtype] if args.dtype else None,
        vision_tower=args.vision_tower,
        load_tower=not args.vision_feature_cache,
        text_only=not sees,
    )[:3]


def feature_cache(args: argparse.Namespace, model: Any) -> FeatureCache | None:
    """The cache of --vision-feature-cache for the tower of this model; None without the flag."""
    if not args.vision_feature_cache:
        return None
    ratio = getattr(model.config, "image_aspect_ratio", None)
    return FeatureCache(args.vision_feature_cache, model.get_vision_tower(), ratio, model.dtype, model.tiling)


def check_asked_in(args: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """`check_questions_template` of the template that questions are asked in, if there is one."""
    name = question_template(args, checkpoint)
    if name not in (None, OWN_TEMPLATE):
        check_questions_template(name, checkpoint)


def make_answerer(args: argparse.Namespace, checkpoint: Checkpoint, sees: bool = True) -> Answerer:
    """Loads the checkpoint to answer as the flags say; `sees` as in `load`."""
    check_asked_in(args, checkpoint)
    return answerer_of(args, checkpoint, load(args, checkpoint, sees), sees)


def answerer_of(args: argparse.Namespace, checkpoint: Checkpoint, loaded: Loaded, sees: bool = True) -> Answerer:
    """A checkpoint that `load` has loaded, to answer as the flags say; without `sees` it reads no images."""
    tokenizer, model, processor = loaded
    generation = Generation(
        args.max_new_tokens, args.temperature, args.top_p, args.num_beams, tuple(args.stop), args.seed
    )
    name = question_template(args, checkpoint)
    own = name == OWN_TEMPLATE
    template = get_template(name) if name and not own else None
    cache = feature_cache(args, model) if sees else None
    return Answerer(model, tokenizer, processor, template, Path(args.image_folder), generation, cache, own)


def dtype_name(args: argparse.Namespace) -> str:
    """The dtype that `load` uses: of the flags, else the default of the device (without --device, "cuda")."""
    return args.dtype or ("fp16" if getattr(args, "device", "cuda") != "cpu" and torch.cuda.is_available() else "fp32")


def settings(args: argparse.Namespace, checkpoint: Checkpoint, sees: bool = False) -> dict[str, Any]:
    """What answers depend on. Batch size and sharing do not change answers; `sees` as in `file_state`."""
    flags = vars(args)
    return {
        **file_state(checkpoint, args.vision_tower, sees),
        "questions": sha256_of(args.question_file),
        "question_flags": {name: flags[name] for name in ("single_pred_prompt", "all_rounds", "lang") if name in flags},
        "conv_mode": question_template(args, checkpoint),
        **{name: flags[name] for name in ("max_new_tokens", "temperature", "top_p", "num_beams", "stop", "seed")},
        "dtype": dtype_name(args),
        "images": args.image_folder,
        # Answers of earlier versions had no marks.
        **({"image_marks": True} if sees and checkpoint.config.get("mm_use_im_start_end") else {}),
    }
