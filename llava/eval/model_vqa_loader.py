"""Answers a question file with a checkpoint: upstream's flags and answer format, batched and resumable."""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from llava.conversation import SeparatorStyle, get_template, known_templates
from llava.data.feature_cache import FeatureCache
from llava.eval.runner import (
    Answerer,
    AnswersFile,
    EvaluationError,
    Generation,
    check_images,
    chunk,
    read_questions,
    run,
)
from llava.files import sha256_of
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint import read_checkpoint

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def eval_model(args: argparse.Namespace) -> None:
    """One answers file for one checkpoint."""
    args.conv_mode = args.conv_mode or recorded_template(args.model_path)
    template = get_template(args.conv_mode)
    folder = Path(args.image_folder)
    everything = read_questions(args.question_file)
    questions = chunk(everything, args.num_chunks, args.chunk_idx)
    check_images(questions, folder)
    answers = AnswersFile(args.answers_file, settings(args))
    answerer = make_answerer(args, template, folder)
    if answerer.feature_cache is not None:
        cache, model = answerer.feature_cache, answerer.model
        images = dict.fromkeys(folder / q.image for q in questions if q.image)
        cache.ensure(images, model.get_vision_tower(), device=model.device)
    run(answerer, questions, answers, get_model_name_from_path(args.model_path), args.batch_size)
    print(f"{len(questions)} answers are in {args.answers_file}")


def make_answerer(args: argparse.Namespace, template: Any, folder: Path) -> Answerer:
    tokenizer, model, processor, _ = load_pretrained_model(
        args.model_path,
        args.model_base,
        dtype=DTYPES[args.dtype] if args.dtype else None,
        vision_tower=args.vision_tower,
        load_tower=not args.vision_feature_cache,
    )
    cache = None
    if args.vision_feature_cache:
        ratio = getattr(model.config, "image_aspect_ratio", None)
        cache = FeatureCache(args.vision_feature_cache, model.get_vision_tower(), ratio, model.dtype)
    generation = Generation(args.max_new_tokens, args.temperature, args.top_p, args.num_beams)
    return Answerer(model, tokenizer, processor, template, folder, generation, cache)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What answers depend on. Batch size is left out: it does not change them."""
    checkpoint = Path(args.model_path)
    weights = sorted([*checkpoint.glob("*.safetensors"), *checkpoint.glob("*.bin")])
    return {
        "model": str(checkpoint.resolve()),
        "weights": [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in weights],
        "base": args.model_base,
        "questions": sha256_of(args.question_file),
        "chunk": (args.num_chunks, args.chunk_idx),
        "conv_mode": args.conv_mode,
        "generation": (args.max_new_tokens, args.temperature, args.top_p, args.num_beams),
        "dtype": args.dtype,
        "images": args.image_folder,
    }


def recorded_template(model_path: str) -> str:
    """The template that training wrote into the checkpoint's config; upstream's default where there is none."""
    recorded = read_checkpoint(model_path).config.get("conversation_template")
    known = known_templates()
    answering = recorded in known and known[recorded].sep_style is not SeparatorStyle.PLAIN
    return recorded if answering else "llava_v1"


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--model-base")
    parser.add_argument("--image-folder", default="")
    parser.add_argument("--conv-mode", help="conversation template; default: the one that the checkpoint records")
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument("--top_p", type=float)
    parser.add_argument("--num_beams", type=int, default=1)
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16, help="answers do not depend on it in fp32")
    parser.add_argument("--dtype", choices=DTYPES, help="default: fp16 on a GPU, fp32 on a CPU")
    parser.add_argument("--vision-tower", help="tower folder, where config.json records one of another machine")
    parser.add_argument("--vision-feature-cache", help="folder for features of the frozen tower")


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer a question file")
    add_model_flags(parser)
    parser.add_argument("--question-file", required=True)
    parser.add_argument("--answers-file", required=True)
    parser.add_argument("--num-chunks", type=int, default=1)
    parser.add_argument("--chunk-idx", type=int, default=0)
    args = parser.parse_args()
    try:
        read_checkpoint(args.model_path)
        eval_model(args)
    except (EvaluationError, ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
