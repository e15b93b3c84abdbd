"""What a scoring command is given: the metrics that its inputs allow, its samples, and the model that reads them."""

import argparse
from pathlib import Path

from llava.conversation import get_template
from llava.data.feature_cache import FeatureCache
from llava.eval.answering.arguments import DTYPES, recorded_template
from llava.model.builder import load_pretrained_model
from visual_region.importance import DATA_METRICS, METRICS, PARAMETER_METRICS, ScoreError
from visual_region.importance.samples import Reader, SampleSet, open_samples


def wanted_metrics(text: str | None, has_data: bool, has_backbone: bool) -> list[str]:
    """The metrics to compute, in the order of the table; raises `ScoreError` for one that lacks its input."""
    if text is None:
        names = [*DATA_METRICS] * has_data + [*PARAMETER_METRICS] * has_backbone
        if not names:
            raise ScoreError("give --data-path, for the metrics that read samples, or --backbone, for the others")
        return names
    asked = [name.strip() for name in text.split(",") if name.strip()]
    problems = [f"there is no metric {name!r}; there are {', '.join(METRICS)}" for name in asked if name not in METRICS]
    for names, given, flag in (
        (DATA_METRICS, has_data, "--data-path"),
        (PARAMETER_METRICS, has_backbone, "--backbone"),
    ):
        lacking = [name for name in asked if name in names]
        if lacking and not given:
            problems.append(f"{', '.join(lacking)} need {flag}")
    if not asked:
        problems.append(f"--metrics names none; there are {', '.join(METRICS)}")
    if problems:
        raise ScoreError("; ".join(problems))
    return [name for name in METRICS if name in asked]


def checked_samples(args: argparse.Namespace) -> SampleSet:
    """The samples, with all that can be wrong about flags, template, data and images found out before a model loads."""
    if args.samples != "all" and not (args.samples.isdecimal() and int(args.samples)):
        raise ScoreError(f"--samples is a whole number from 1 on, or 'all', not {args.samples!r}")
    if args.batch_size < 1:
        raise ScoreError(f"--batch-size is a whole number from 1 on, not {args.batch_size}")
    get_template(template_name(args))
    samples = open_samples(args.data_path, None if args.samples == "all" else int(args.samples), args.seed)
    samples.check_images(Path(args.image_folder))
    return samples


def make_reader(args: argparse.Namespace, samples: SampleSet) -> Reader:
    """The model with all that makes batches for it."""
    tokenizer, model, processor, _ = load_pretrained_model(
        args.model_path,
        args.model_base,
        dtype=DTYPES[args.dtype] if args.dtype else None,
        vision_tower=args.vision_tower,
        load_tower=bool(samples.with_images and not args.vision_feature_cache),
    )
    if samples.with_images and model.get_vision_tower() is None:
        raise ScoreError(f"{args.model_path} has no vision tower, but {samples.with_images} samples have images")
    reader = Reader(model, tokenizer, processor, get_template(template_name(args)), Path(args.image_folder))
    if args.vision_feature_cache and samples.with_images:
        ratio = getattr(model.config, "image_aspect_ratio", None)
        reader.feature_cache = FeatureCache(args.vision_feature_cache, model.get_vision_tower(), ratio, model.dtype)
        names = dict.fromkeys(name for i in samples.indices for name in samples.records[i].images)
        images = [reader.image_folder / name for name in names]
        reader.feature_cache.ensure(images, model.get_vision_tower(), device=model.device)
    return reader


def template_name(args: argparse.Namespace) -> str:
    """The template that --conv-mode names, else the one that the checkpoint records."""
    return args.conv_mode or recorded_template(args.model_path)
