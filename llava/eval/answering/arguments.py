"""Flags that the model_vqa programs share, and what follows from them before and while a model is loaded."""

import argparse
from pathlib import Path
from typing import Any

import torch

from llava.checkpoint.model_state import model_state
from llava.checkpoint.old_folder import Kind, read_checkpoint
from llava.conversation import Conversation, get_template
from llava.data.feature_cache import FeatureCache
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.errors import EvaluationError
from llava.families import template_of_config
from llava.files import sha256_of
from llava.model.builder import load_pretrained_model

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SHARE = {"auto": None, "on": True, "off": False}


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Upstream's flags of model and generation, and ours for speed."""
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--model-base")
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
        help="read an image, or examples, that several questions begin with once; auto: where that is faster",
    )
    parser.add_argument("--num-workers", type=int, default=4, help="threads that read images ahead")
    parser.add_argument("--device", default="cuda", help="default: cuda, or cpu where there is none")
    parser.add_argument("--dtype", choices=DTYPES, help="default: fp16 on a GPU, fp32 on a CPU")
    parser.add_argument("--vision-tower", help="tower folder, where config.json records one of another machine")
    parser.add_argument("--vision-feature-cache", help="folder for features of the frozen tower")


def question_parser(description: str, max_new_tokens: int, question_file: str | None = None) -> argparse.ArgumentParser:
    """A parser with all that a model_vqa program takes.

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
        help="answer the other questions where images are missing; NAME.run.json beside the answers lists them",
    )
    return parser


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        size = int(text)
    except ValueError:
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number of at least 1")
    return size


def check_flags(args: argparse.Namespace) -> None:
    """Raises `EvaluationError` that names all flags whose values cannot be meant."""
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


def generation_of(args: argparse.Namespace) -> Generation:
    return Generation(
        args.max_new_tokens,
        args.temperature,
        args.top_p,
        args.num_beams,
        tuple(args.stop),
        args.seed,
    )


def template_of(args: argparse.Namespace) -> Conversation | None:
    """The template that the flags or the checkpoint ask for; None for raw prompts."""
    if args.raw_prompt:
        return None
    return get_template(args.conv_mode or recorded_template(args.model_path))


def recorded_template(model_path: str) -> str:
    """The template that training wrote into the checkpoint's config; its family's where there is none."""
    config = read_checkpoint(model_path).config
    if "model_type" not in config:
        raise EvaluationError(f"{model_path} records no conversation template; give --conv-mode")
    return template_of_config(config)


def check_sees(model_path: str) -> None:
    """Raises `EvaluationError` for a plain language model, which cannot answer questions on images."""
    checkpoint = read_checkpoint(model_path)
    if checkpoint.kind is Kind.FULL and not checkpoint.config.get("mm_vision_tower"):
        raise EvaluationError(
            f"the questions have images, but {model_path} has no vision tower; give a vision-language checkpoint, or a "
            "question file without images"
        )


def make_answerer(args: argparse.Namespace, template: Conversation | None, folder: Path, sees: bool = True) -> Answerer:
    """Loads the checkpoint that the flags name.

    Args:
        sees: whether any question has an image; without one neither tower nor projector is built.
    """
    tokenizer, model, processor, _ = load_pretrained_model(
        args.model_path,
        args.model_base,
        device=args.device,
        dtype=DTYPES[args.dtype] if args.dtype else None,
        vision_tower=args.vision_tower,
        load_tower=not args.vision_feature_cache,
        text_only=not sees,
    )
    cache = None
    if args.vision_feature_cache and sees:
        ratio = getattr(model.config, "image_aspect_ratio", None)
        cache = FeatureCache(args.vision_feature_cache, model.get_vision_tower(), ratio, model.dtype)
    return Answerer(model, tokenizer, processor, template, folder, generation_of(args), cache)


def settings(args: argparse.Namespace, sees: bool = False) -> dict[str, Any]:
    """What answers depend on. Batch size and sharing are left out: they do not change them.

    Args:
        sees: whether any question of the whole file has an image.
    """
    flags = vars(args)
    template = None if flags.get("raw_prompt") else args.conv_mode or recorded_template(args.model_path)
    on_gpu = flags.get("device") != "cpu" and torch.cuda.is_available()
    return {
        **model_state(args.model_path, args.model_base, args.vision_tower, sees),
        "questions": sha256_of(args.question_file),
        "question_flags": {name: flags[name] for name in ("single_pred_prompt", "all_rounds", "lang") if name in flags},
        "conv_mode": template,
        "max_new_tokens": args.max_new_tokens,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "num_beams": args.num_beams,
        "stop": flags.get("stop", []),
        "seed": flags.get("seed", 0),
        "dtype": args.dtype or ("fp16" if on_gpu else "fp32"),
        "images": args.image_folder,
    }
