"""Flags that the evaluation programs share, and the one way from flags to a checkpoint, a model and an answerer."""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llava.checkpoint.folder import Checkpoint, open_checkpoint
from llava.checkpoint.identity import file_state
from llava.checkpoint.old_folder import read_checkpoint
from llava.conversation import get_template
from llava.data.feature_cache import FeatureCache
from llava.dtypes import DTYPES
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.errors import EvaluationError
from llava.families import template_of_config
from llava.files import sha256_of
from llava.flags import add_checkpoint_flags, positive
from llava.model.builder import load_checkpoint

SHARE = {"auto": None, "on": True, "off": False}


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Upstream's flags of model and generation, and ours for speed."""
    add_checkpoint_flags(parser, "default: fp16 on a GPU, fp32 on a CPU")
    parser.add_argument("--image-folder", default="")
    parser.add_argument("--conv-mode", help="conversation template; default: the one that the checkpoint records")
    parser.add_argument("--temperature", type=float, default=0.2, help="0 takes the most probable token")
    parser.add_argument("--top_p", type=float)
    parser.add_argument("--num_beams", type=int, default=1)
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0, help="of sampling; a question's draw depends on no other's")
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end an answer before this text; may be repeated"
    )
    parser.add_argument("--raw-prompt", action="store_true", help="give the question's text without a conversation")
    parser.add_argument(
        "--batch-size",
        type=_batch_size,
        default=None,
        metavar="N|auto",
        help="questions at once; auto (default) takes what fits and halves it when memory runs out. In fp32 answers "
        "do not depend on it",
    )
    parser.add_argument(
        "--share-prefix",
        choices=SHARE,
        default="auto",
        help="read once what several questions begin with (an image, examples); auto: if that is faster",
    )
    parser.add_argument("--num-workers", type=int, default=4, help="threads that read images ahead")
    parser.add_argument("--device", default="cuda", help="default: cuda, or cpu without a GPU")
    parser.add_argument("--vision-feature-cache", help="folder for features of the frozen tower")


def question_parser(description: str, max_new_tokens: int, question_file: str | None = None) -> argparse.ArgumentParser:
    """A parser with all the flags of a model_vqa program.

    Args:
        max_new_tokens, question_file: upstream's defaults of that program; None makes the question file required.
    """
    parser = argparse.ArgumentParser(description=description)
    add_model_flags(parser)
    parser.set_defaults(max_new_tokens=max_new_tokens)
    parser.add_argument("--question-file", required=question_file is None, default=question_file)
    parser.add_argument("--answers-file", required=True)
    parser.add_argument("--num-chunks", type=int, default=1, help="processes that share the questions, round-robin")
    parser.add_argument("--chunk-idx", type=int, default=0, help="which of them this is, from 0")
    parser.add_argument(
        "--skip-missing-images",
        action="store_true",
        help="answer the other questions if images are missing; NAME.run.json beside the answers lists them",
    )
    return parser


def _batch_size(text: str) -> int | None:
    return None if text == "auto" else positive(text)


def check_flags(args: argparse.Namespace) -> None:
    """Raises `EvaluationError` that names all flags with impossible values."""
    wrong = [
        f"{flag} {value}: {allowed}"
        for flag, value, allowed, ok in (
            ("--temperature", args.temperature, "0 or more", args.temperature >= 0),
            ("--top_p", args.top_p, "more than 0, at most 1", args.top_p is None or 0 < args.top_p <= 1),
            ("--num_beams", args.num_beams, "1 or more", args.num_beams >= 1),
            ("--max_new_tokens", args.max_new_tokens, "1 or more", args.max_new_tokens >= 1),
            ("--num-workers", args.num_workers, "0 or more", args.num_workers >= 0),
            ("--stop", args.stop, "no empty text", all(args.stop)),
            ("--conv-mode", args.conv_mode, "not together with --raw-prompt", not (args.raw_prompt and args.conv_mode)),
        )
        if not ok
    ]
    if wrong:
        raise EvaluationError("; ".join(wrong))


def open_model(args: argparse.Namespace) -> Checkpoint:
    """The checkpoint that --model-path and --model-base name, opened and checked once for the whole program."""
    return open_checkpoint(args.model_path, args.model_base, flag="--model-path")


def template_name(args: argparse.Namespace, checkpoint: Checkpoint) -> str | None:
    """The conversation template of the flags, else of the checkpoint; None for raw prompts."""
    if vars(args).get("raw_prompt"):
        return None
    return args.conv_mode or checkpoint.template


def recorded_template(model_path: str) -> str:
    """For callers that have not moved yet."""
    return template_of_config(read_checkpoint(model_path).config)


def check_sees(checkpoint: Checkpoint) -> None:
    """Raises `EvaluationError` for a plain language model, which cannot answer questions on images."""
    if not checkpoint.tower:
        raise EvaluationError(
            f"the questions have images, but {checkpoint.name} has no vision tower; give a vision-language checkpoint, "
            "or a question file without images"
        )


def load(
    args: argparse.Namespace, checkpoint: Checkpoint, sees: bool = True
) -> tuple[PreTrainedTokenizerBase, Any, Any]:
    """Tokenizer, model and image processor.

    Args:
        sees: whether images are read; without images neither tower nor projector is built.
    """
    tokenizer, model, processor, _ = load_checkpoint(
        checkpoint,
        device=args.device,
        dtype=DTYPES[args.dtype] if args.dtype else None,
        vision_tower=args.vision_tower,
        load_tower=not args.vision_feature_cache,
        text_only=not sees,
    )
    return tokenizer, model, processor


def feature_cache(args: argparse.Namespace, model: Any) -> FeatureCache | None:
    """The cache that --vision-feature-cache names, for the tower of this model; None without the flag."""
    if not args.vision_feature_cache:
        return None
    ratio = getattr(model.config, "image_aspect_ratio", None)
    return FeatureCache(args.vision_feature_cache, model.get_vision_tower(), ratio, model.dtype)


def make_answerer(args: argparse.Namespace, checkpoint: Checkpoint, sees: bool = True) -> Answerer:
    """Loads the checkpoint, ready to answer as the flags say; `sees` as in `load`."""
    name = template_name(args, checkpoint)
    tokenizer, model, processor = load(args, checkpoint, sees)
    generation = Generation(
        args.max_new_tokens, args.temperature, args.top_p, args.num_beams, tuple(args.stop), args.seed
    )
    template = get_template(name) if name else None
    cache = feature_cache(args, model) if sees else None
    return Answerer(model, tokenizer, processor, template, Path(args.image_folder), generation, cache)


def settings(args: argparse.Namespace, checkpoint: Checkpoint, sees: bool = False) -> dict[str, Any]:
    """What answers depend on. Batch size and sharing are left out: they do not change answers.

    Args:
        sees: whether any question of the whole file has an image.
    """
    flags = vars(args)
    on_gpu = flags.get("device") != "cpu" and torch.cuda.is_available()
    return {
        **file_state(checkpoint, args.vision_tower, sees),
        "questions": sha256_of(args.question_file),
        "question_flags": {name: flags[name] for name in ("single_pred_prompt", "all_rounds", "lang") if name in flags},
        "conv_mode": template_name(args, checkpoint),
        "max_new_tokens": args.max_new_tokens,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "num_beams": args.num_beams,
        "stop": flags.get("stop", []),
        "seed": flags.get("seed", 0),
        "dtype": args.dtype or ("fp16" if on_gpu else "fp32"),
        "images": args.image_folder,
    }
