"""What a command that measures layers is given: the metrics that its inputs allow, its samples, and the model."""

import argparse
from pathlib import Path

from llava.checkpoint.folder import Checkpoint
from llava.conversation import get_template
from llava.data.feature_cache import FeatureCache
from llava.dtypes import dtype_of
from llava.model.builder import load_checkpoint
from visual_region.importance import METRICS, PARAMETER_METRICS, SAMPLE_METRICS
from visual_region.importance.samples import Reader, SampleSet, open_samples
from visual_region.scores import ScoreError


def add_sample_flags(parser: argparse._ActionsContainer) -> None:
    """Flags of the samples and of the pass over them."""
    parser.add_argument("--data-path", help="LLaVA JSON, or image-caption pairs")
    parser.add_argument("--image-folder", default="")
    parser.add_argument("--samples", default="64", help="how many, drawn at random; or 'all'")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn samples and of the bootstrap")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--conv-mode", help="conversation template; default: the one that the checkpoint records")
    parser.add_argument("--vision-feature-cache", help="folder for features of the frozen tower")


def wanted_metrics(text: str | None, has_data: bool, has_backbone: bool) -> list[str]:
    """The metrics to compute, in the order of the table; raises `ScoreError` for one that lacks its input."""
    if text is None:
        names = [*SAMPLE_METRICS] * has_data + [*PARAMETER_METRICS] * has_backbone
        if not names:
            raise ScoreError("give --data-path, for the metrics that read samples, or --backbone, for the others")
        return names
    asked = [name.strip() for name in text.split(",") if name.strip()]
    problems = [f"there is no metric {name!r}; there are {', '.join(METRICS)}" for name in asked if name not in METRICS]
    for table, given, flag in (
        (SAMPLE_METRICS, has_data, "--data-path"),
        (PARAMETER_METRICS, has_backbone, "--backbone"),
    ):
        lacking = [name for name in asked if name in table]
        if lacking and not given:
            problems.append(f"{', '.join(lacking)} need {flag}")
    if not asked:
        problems.append(f"--metrics names none; there are {', '.join(METRICS)}")
    if problems:
        raise ScoreError("; ".join(problems))
    return [name for name in METRICS if name in asked]


def checked_samples(args: argparse.Namespace, checkpoint: Checkpoint) -> SampleSet:
    """The samples, after every check of flags, template, data and images that needs no model."""
    if args.samples != "all" and not (args.samples.isdecimal() and int(args.samples)):
        raise ScoreError(f"--samples is a whole number from 1 on, or 'all', not {args.samples!r}")
    if args.batch_size < 1:
        raise ScoreError(f"--batch-size is a whole number from 1 on, not {args.batch_size}")
    get_template(template_name(args, checkpoint))
    samples = open_samples(args.data_path, None if args.samples == "all" else int(args.samples), args.seed)
    samples.check_images(Path(args.image_folder))
    return samples


def make_reader(args: argparse.Namespace, checkpoint: Checkpoint, samples: SampleSet) -> Reader:
    """The model, and what makes batches for it."""
    tokenizer, model, processor, _ = load_checkpoint(
        checkpoint,
        dtype=dtype_of(args.dtype),
        vision_tower=args.vision_tower,
        load_tower=bool(samples.with_images and not args.vision_feature_cache),
    )
    if samples.with_images and model.get_vision_tower() is None:
        raise ScoreError(f"{checkpoint.name} has no vision tower, but {samples.with_images} samples have images")
    template = get_template(template_name(args, checkpoint))
    reader = Reader(model, tokenizer, processor, template, Path(args.image_folder))
    if args.vision_feature_cache and samples.with_images:
        ratio = getattr(model.config, "image_aspect_ratio", None)
        reader.feature_cache = FeatureCache(args.vision_feature_cache, model.get_vision_tower(), ratio, model.dtype)
        images = [reader.image_folder / name for name in samples.images]
        reader.feature_cache.ensure(images, model.get_vision_tower(), device=model.device)
    return reader


def template_name(args: argparse.Namespace, checkpoint: Checkpoint) -> str:
    """The template that --conv-mode names, else the one that the checkpoint records."""
    return args.conv_mode or checkpoint.template
