"""`python -m visual_region score`: importance of every layer by every metric, to a file and a picture."""

import argparse
import contextlib
from pathlib import Path
from typing import Any

from llava.checkpoint import identity
from llava.checkpoint.folder import open_checkpoint, recorded_name
from llava.checkpoint.opened import Checkpoint
from llava.conversation import SeparatorStyle, get_template
from llava.dtypes import DTYPES
from llava.eval.answering.arguments import dtype_name
from llava.journal import Journal, differences, journal_path
from llava.names import agree, count, some
from llava.outputs import PICTURE, OutputError, check_cache, check_files
from llava.tables import text_table
from visual_region.importance import PARAMETER_METRICS, SAMPLE_METRICS, inputs
from visual_region.importance.parameters import check_comparable
from visual_region.importance.run import measure_samples, parameter_metrics, sample_metrics
from visual_region.importance.samples import SampleSet
from visual_region.importance.score_file import write_scores
from visual_region.importance.tokens import KINDS
from visual_region.importance.weights import DecoderWeights, decoder_weights
from visual_region.layers import LayerSelection
from visual_region.pictures.bars import draw_bars
from visual_region.pictures.heatmap import draw_heatmap
from visual_region.scores import SCORES, ScoreError, ScoreFile


def run(args: argparse.Namespace) -> None:
    _check_outputs(args)
    metrics = inputs.wanted_metrics(args.metrics, bool(args.data_path), bool(args.backbone))
    checkpoint = open_checkpoint(args.model_path, args.model_base, flag="--model-path")
    backbone = open_checkpoint(args.backbone, flag="--backbone") if args.backbone else None
    marked = args.mark and LayerSelection.parse(args.mark, checkpoint.depth).layers
    samples = _samples(args, checkpoint, metrics) if set(metrics) & set(SAMPLE_METRICS) else None
    pair = None
    if backbone and set(metrics) & set(PARAMETER_METRICS):
        pair = decoder_weights(checkpoint, DTYPES[args.dtype or "fp32"]), decoder_weights(backbone)
        check_comparable(*pair)
    settings = {
        "metrics": metrics,
        "samples": args.samples if samples else None,
        "seed": args.seed,
        "batch_size": args.batch_size,
        "dtype": dtype_name(args) if samples else args.dtype or "fp32",
        "template": samples and inputs.sample_template(args, checkpoint, samples),
    }
    digest = identity.digest(checkpoint)
    others = {
        "identity": digest,
        "data": samples and samples.sha256,
        "indices": samples and samples.indices,
        "images": args.image_folder,
        "tower": args.vision_tower,
        "backbone": pair and identity.digest(backbone),
    } | _definitions(settings)
    # Earlier versions recorded the flag.
    older = settings | others | {"dtype": args.dtype}
    # Without the flag, weights are compared in float32, also where samples are read in half precision.
    if pair and not args.dtype and settings["dtype"] != "fp32":
        others["parameters"] = "fp32"
    journal = Journal(args.output, settings | others, older=older)
    scores = measured_before(args, journal.digests, settings)
    if scores:
        print(f"{args.output} holds the scores of this model, data and settings; nothing is measured again")
    else:
        content = {"model": str(checkpoint.path.resolve()), "identity": digest, "run": journal.digest}
        content |= _measure(args, checkpoint, samples, pair, settings, journal)
        write_scores(args.output, content)
        scores = ScoreFile.read(args.output)
    journal.remove()
    *pictures, heatmap = _pictures(args.output)
    draw_bars(scores, scores.content["region"] if marked is None else marked, *pictures)
    if "image-attention" in scores.names:
        draw_heatmap([scores], "image-attention", heatmap)
        pictures.append(heatmap)
    print(_table(scores, metrics))
    place = "angular" in metrics and inputs.angle_place(settings["template"])
    if place and place != inputs.PROMPT_END:
        print(f"angular: at the {place}, because a caption's prompt is the image alone")
    print(f"scores are in {args.output}, pictures in {', '.join(map(str, pictures))}")


def measured_before(args: argparse.Namespace, digests: list[str], settings: dict[str, Any]) -> ScoreFile | None:
    """The output's scores, if a run of the same settings wrote them; prints how the settings of others differ."""
    with contextlib.suppress(ScoreError):
        found = ScoreFile.read(args.output)
        before = found.content["settings"]
        now = settings | {"resamples": args.resamples}
        if before.get("dtype") is None:
            # Files of earlier versions hold the flag.
            now["dtype"] = args.dtype
        if found.content.get("run") in digests and before.get("resamples") == args.resamples:
            return found
        differ = differences({name: before.get(name) for name in now}, now)
        named = f" ({some(differ)})" if differ else ""
        print(f"{args.output} holds scores of another model, data file or settings{named}; they are replaced")
    return None


def _measure(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    samples: SampleSet | None,
    pair: tuple[DecoderWeights, DecoderWeights] | None,
    settings: dict[str, Any],
    journal: Journal,
) -> dict[str, Any]:
    """Measures what the journal does not hold yet; the score file's content from `num_layers` on."""
    metrics, measured, rows, device, data = settings["metrics"], {}, [], None, None
    if samples is not None:
        reader = inputs.make_reader(args, checkpoint, samples)
        device, path = str(reader.model.device), checkpoint.family.layer_path
        rows = measure_samples(reader, samples, metrics, path, args.batch_size, journal)
        measured |= sample_metrics(rows, metrics, args.resamples, args.seed)
        data = {"file": samples.path, "sha256": samples.sha256, "samples": len(rows)}
        data |= {"with_images": samples.with_images, "captions": samples.captions}
        data["angular_at"] = inputs.angle_place(settings["template"])
        data["tokens"] = {kind: sum(row["tokens"][i] for row in rows) for i, kind in enumerate(KINDS)}
    if pair is not None:
        measured |= parameter_metrics(*pair, metrics, journal)
    return {
        "num_layers": len(next(iter(measured.values()))["values"]),
        "region": list(checkpoint.record.region),
        "backbone": recorded_name(args.backbone),
        "settings": settings | {"device": device, "resamples": args.resamples},
        "data": data,
        "samples": [{"id": row["id"], "tokens": dict(zip(KINDS, row["tokens"], strict=True))} for row in rows],
        "metrics": measured,
    }


def _definitions(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that keep apart what earlier versions measured under the same name (`visual_region.scores`)."""
    now = {}
    if "angular-param" in settings["metrics"]:
        now["angular-param"] = "mean of tensors"
    if "angular" in settings["metrics"] and (place := inputs.angle_place(settings["template"])) != inputs.PROMPT_END:
        now["angular_at"] = place
    if settings["template"] and get_template(settings["template"]).sep_style is SeparatorStyle.SINGLE:
        now["answers"] = "words"
    return now


def _check_outputs(args: argparse.Namespace) -> None:
    """Raises `OutputError` if the score file, its journal or its pictures cannot be written."""
    bars, heatmap = _pictures(args.output)
    outputs = {
        "--output": (args.output, SCORES),
        "the picture next to --output,": (bars, PICTURE),
        "the heat map next to --output,": (heatmap, PICTURE),
    }
    check_files(outputs, [args.data_path])
    if journal_path(args.output).is_dir():
        raise OutputError(f"{journal_path(args.output)} is a folder; give another --output")
    check_cache(args.vision_feature_cache, [args.model_path, args.model_base, args.vision_tower])


def _pictures(output: str | Path) -> tuple[Path, Path]:
    return Path(output).with_suffix(".png"), Path(output).with_suffix(".heatmap.png")


def _samples(args: argparse.Namespace, checkpoint: Checkpoint, metrics: list[str]) -> SampleSet:
    """The samples; raises `ScoreError` if they lack what the metrics need."""
    if args.resamples < 1:
        raise ScoreError(f"--resamples is a whole number from 1 on, not {args.resamples}")
    samples = inputs.checked_samples(args, checkpoint)
    needing = [name for name in metrics if name in SAMPLE_METRICS and SAMPLE_METRICS[name].needs_images]
    if needing and not samples.with_images:
        without = ",".join(name for name in metrics if name not in needing)
        hint = f"leave them out: --metrics {without}" if without else "give a data file with images"
        none = f"none of the {count(len(samples.indices), 'sample')} of {args.data_path} has one"
        verb = agree(len(needing), "needs", "need")
        raise ScoreError(f"{', '.join(needing)} {verb} images, and {none}; {hint}")
    return samples


def _table(scores: ScoreFile, metrics: list[str]) -> str:
    """One line per layer: each metric's value, with half the width of its interval."""
    region, entries = set(scores.content["region"]), [scores.entry(name) for name in metrics]

    def cell(entry: dict[str, Any], i: int) -> str:
        width = f" ± {(entry['high'][i] - entry['low'][i]) / 2:.1g}" if "low" in entry else ""
        return f"{entry['values'][i]:.4g}{width}"

    rows = [["layer", *metrics]]
    for i in range(scores.num_layers):
        rows.append([f"{i}{'*' if i in region else ' '}", *(cell(entry, i) for entry in entries)])
    bounded = ["± half the width of the 95% interval"] * any("low" in entry for entry in entries)
    return "\n".join([text_table(rows, ">" * len(rows[0])), "; ".join(["* tuned", *bounded])])
