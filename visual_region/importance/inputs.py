"""The inputs of commands that measure layers: metrics, samples and the model."""

import argparse
from pathlib import Path

from llava.checkpoint.opened import Checkpoint, Kind
from llava.conversation import SeparatorStyle, get_template
from llava.dtypes import dtype_of
from llava.eval.answering.arguments import feature_cache, template_name
from llava.model.builder import load_checkpoint, load_tokenizer
from llava.names import agree, close, count, did_you_mean
from llava.tokenization import check_template
from visual_region.importance import METRICS, PARAMETER_METRICS, SAMPLE_METRICS
from visual_region.importance.samples import CAPTION_TEMPLATE, Reader, SampleSet, open_samples
from visual_region.scores import ScoreError

PROMPT_END, SAMPLE_END = "last token of the prompt", "last token of the sample"


def wanted_metrics(text: str | None, has_data: bool, has_backbone: bool) -> list[str]:
    """The metrics to compute, in the order of `METRICS`; raises `ScoreError` for one without its input."""
    if text is None:
        names = [*SAMPLE_METRICS] * has_data + [*PARAMETER_METRICS] * has_backbone
        if not names:
            raise ScoreError("give --data-path, for the metrics that read samples, or --backbone, for the others")
        return names
    asked = [name.strip() for name in text.split(",") if name.strip()]
    problems = [
        f"there is no metric {name!r}; there are {', '.join(METRICS)}{did_you_mean(*close(name, METRICS))}"
        for name in asked
        if name not in METRICS
    ]
    tables = (SAMPLE_METRICS, has_data, "--data-path"), (PARAMETER_METRICS, has_backbone, "--backbone")
    for table, given, flag in tables:
        lacking = [name for name in asked if name in table]
        if lacking and not given:
            problems.append(f"{', '.join(lacking)} {agree(len(lacking), 'needs', 'need')} {flag}")
    if not asked:
        problems.append(f"--metrics names none; there are {', '.join(METRICS)}")
    if problems:
        raise ScoreError("; ".join(problems))
    return [name for name in METRICS if name in asked]


def sample_template(args: argparse.Namespace, checkpoint: Checkpoint, samples: SampleSet) -> str:
    """The name of the template that the samples are read in."""
    return CAPTION_TEMPLATE if samples.captions else template_name(args, checkpoint)


def angle_place(template: str) -> str:
    """The token whose angle `angular` and blocks measure (`tokens.last_positions`), in words."""
    plain = get_template(template).sep_style is SeparatorStyle.PLAIN
    return SAMPLE_END if plain else PROMPT_END


def checked_samples(args: argparse.Namespace, checkpoint: Checkpoint) -> SampleSet:
    """The samples, after all checks that need no model."""
    number = None if args.samples == "all" else args.samples.isdecimal() and int(args.samples)
    if number == 0:
        raise ScoreError(f"--samples is a whole number from 1 on, or 'all', not {args.samples!r}")
    if args.batch_size < 1:
        raise ScoreError(f"--batch-size is a whole number from 1 on, not {args.batch_size}")
    check_template(template_name(args, checkpoint), load_tokenizer(checkpoint.tokenizer_folder), "--conv-mode")
    samples = open_samples(args.data_path, number, args.seed)
    samples.check_images(Path(args.image_folder))
    if samples.with_images and checkpoint.kind is Kind.FULL and not (checkpoint.tower or args.vision_tower):
        seen = count(samples.with_images, "sample has", "samples have")
        raise ScoreError(f"{checkpoint.name} has no vision tower, but {seen} images")
    return samples


def make_reader(args: argparse.Namespace, checkpoint: Checkpoint, samples: SampleSet) -> Reader:
    tokenizer, model, processor, _ = load_checkpoint(
        checkpoint,
        dtype=dtype_of(args.dtype),
        vision_tower=args.vision_tower,
        load_tower=bool(samples.with_images and not args.vision_feature_cache),
    )
    template = get_template(sample_template(args, checkpoint, samples))
    reader = Reader(model, tokenizer, processor, template, Path(args.image_folder))
    if args.vision_feature_cache and samples.with_images:
        reader.feature_cache = feature_cache(args, model)
        images = [reader.image_folder / name for name in samples.images]
        reader.feature_cache.ensure(images, model.get_vision_tower(), device=model.device)
    return reader
