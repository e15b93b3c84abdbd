"""`python -m visual_region score`: importance of every layer by every metric, to a file and a picture."""

import argparse
import sys
from pathlib import Path
from typing import Any

from visual_region.importance import DATA_METRICS, METRICS, PARAMETER_METRICS, ScoreError

HELP = "importance of every layer, by every metric"
EPILOG = (
    "metrics: "
    + "; ".join(f"{metric.name}: {metric.title}" for metric in METRICS.values())
    + ". Interrupted, the same command goes on where it stopped."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--model-base", help="base of a LoRA; default: the one that it records")
    parser.add_argument("--metrics", help="comma-separated; default: all that the given inputs allow")
    parser.add_argument("--data-path", help="LLaVA JSON, or image-caption pairs, for the metrics that read samples")
    parser.add_argument("--image-folder", default="")
    parser.add_argument("--samples", default="64", help="how many, drawn at random; or 'all'")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn samples and of the bootstrap")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples behind the 95%% intervals")
    parser.add_argument("--backbone", help="what the language model was trained from, for the metrics of parameters")
    parser.add_argument("--conv-mode", help="conversation template; default: the one that the checkpoint records")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--dtype",
        choices=("fp32", "fp16", "bf16"),
        help="of the model, and of a LoRA's merged weights; default: fp16 on a GPU, fp32 on a CPU and in merging",
    )
    parser.add_argument("--vision-tower", help="tower folder, where config.json records one of another machine")
    parser.add_argument("--vision-feature-cache", help="folder for features of the frozen tower")
    parser.add_argument("--mark", help="layers to mark in the picture; default: the tuned region")
    parser.add_argument("--output", required=True, help="score file to write; the pictures get its name and .png")


def run(args: argparse.Namespace) -> None:
    """Scores layers; see docs/importance.md."""
    from llava.checkpoint.old_folder import Kind, read_checkpoint
    from llava.checkpoint.side_files import family_at
    from llava.journal import Journal
    from visual_region.importance.inputs import template_name, wanted_metrics
    from visual_region.importance.score_file import identity_of

    _check_outputs(args)
    metrics = wanted_metrics(args.metrics, bool(args.data_path), bool(args.backbone))
    checkpoint = read_checkpoint(args.model_path)
    given = {"--model-path": checkpoint} | ({"--backbone": read_checkpoint(args.backbone)} if args.backbone else {})
    for flag, folder in given.items():
        if folder.kind is Kind.FULL:
            family_at(flag, folder.path, folder.config)
    region = args.mark and _marked(args)
    samples = _samples(args, metrics) if set(metrics) & set(DATA_METRICS) else None
    pair = _weights(args) if set(metrics) & set(PARAMETER_METRICS) else None
    settings = {
        "metrics": metrics,
        "samples": args.samples if samples else None,
        "seed": args.seed,
        "batch_size": args.batch_size,
        "dtype": args.dtype,
        "template": template_name(args) if samples else None,
    }
    identity = identity_of(checkpoint, args.model_base)
    others = {
        "identity": identity,
        "data": samples and samples.sha256,
        "indices": samples and samples.indices,
        "images": args.image_folder,
        "tower": args.vision_tower,
        "backbone": pair and identity_of(read_checkpoint(args.backbone)),
    }
    journal = Journal(args.output, settings | others)
    scores = measured_before(args, journal.digest)
    if scores:
        print(f"{args.output} holds the scores of this very model, data and settings; nothing is measured again")
    else:
        scores = _measure(args, samples, pair, settings, identity, journal)
    journal.remove()
    pictures = _draw(scores, region)
    print(_table(scores, metrics))
    print(f"scores are in {args.output}, pictures in {', '.join(map(str, pictures))}")


def measured_before(args: argparse.Namespace, digest: str) -> Any:
    """The output's scores, where a finished run of the same settings wrote them; else None."""
    from visual_region.importance.score_file import ScoreFile

    try:
        found = ScoreFile.read(args.output)
    except ScoreError:
        return None
    same = (found.content.get("run"), found.content["settings"].get("resamples")) == (digest, args.resamples)
    return found if same else None


def _measure(
    args: argparse.Namespace, samples: Any, pair: Any, settings: dict[str, Any], identity: str, journal: Any
) -> Any:
    """Measures what the journal does not hold yet, writes the score file and reads it back."""
    from llava.checkpoint.old_folder import read_checkpoint
    from visual_region.importance.score_file import ScoreFile, write_scores

    metrics = settings["metrics"]
    try:
        measured, config, rows, device = _measure_samples(args, samples, metrics, journal)
        if pair:
            from visual_region.importance.run import parameter_metrics

            measured |= parameter_metrics(*pair, metrics, journal)
    except KeyboardInterrupt:
        sys.exit(f"\ninterrupted; what was measured is in {journal.path}, and the same command goes on from there")
    depth = len(next(iter(measured.values()))["values"])
    content = {
        "model": str(Path(args.model_path).resolve()),
        "identity": identity,
        "run": journal.digest,
        "num_layers": depth,
        "region": _region(config or read_checkpoint(args.model_path).config, depth),
        "backbone": args.backbone and str(Path(args.backbone).resolve()),
        "settings": settings | {"device": device, "resamples": args.resamples},
        "data": samples and _data(samples, rows),
        "samples": [{"id": row["id"], "tokens": _tokens(row)} for row in rows],
        "metrics": measured,
    }
    write_scores(args.output, content)
    return ScoreFile.read(args.output)


def _check_outputs(args: argparse.Namespace) -> None:
    """The score file, its journal and its pictures can be written, and replace nothing but their like."""
    from llava.outputs import PICTURE, SCORES, OutputError, check_cache, check_files

    bars, heatmap = _pictures(args.output)
    check_files(
        {
            "--output": (args.output, SCORES),
            "the picture beside --output,": (bars, PICTURE),
            "the heat map beside --output,": (heatmap, PICTURE),
        },
        [args.data_path],
    )
    if Path(f"{args.output}.journal").is_dir():
        raise OutputError(f"{args.output}.journal is a folder; give another --output")
    check_cache(args.vision_feature_cache)


def _pictures(output: str | Path) -> tuple[Path, Path]:
    """Bars and heat map beside a score file."""
    return Path(output).with_suffix(".png"), Path(output).with_suffix(".heatmap.png")


def _samples(args: argparse.Namespace, metrics: list[str]) -> Any:
    """The samples, found to be there and to have what the metrics need."""
    from visual_region.importance.inputs import checked_samples

    if args.resamples < 1:
        raise ScoreError(f"--resamples is a whole number from 1 on, not {args.resamples}")
    samples = checked_samples(args)
    needing = [name for name in metrics if METRICS[name].needs == "images"]
    if needing and not samples.with_images:
        without = ",".join(name for name in metrics if name not in needing)
        hint = f"leave them out: --metrics {without}" if without else "give a data file with images"
        raise ScoreError(
            f"{', '.join(needing)} need images, and none of the {len(samples.indices)} samples of {args.data_path} "
            f"has one; {hint}"
        )
    return samples


def _weights(args: argparse.Namespace) -> Any:
    """Both checkpoints' weights, found to be of one shape; only their headers are read."""
    from llava.eval.answering.arguments import DTYPES
    from visual_region.importance.parameters import check_comparable
    from visual_region.importance.weights import open_weights

    dtype = DTYPES[args.dtype or "fp32"]
    pair = open_weights(args.model_path, args.model_base, dtype), open_weights(args.backbone)
    check_comparable(*pair)
    return pair


def _measure_samples(args: argparse.Namespace, samples: Any, metrics: list[str], journal: Any) -> tuple:
    """Metrics of samples, the model's config, what was recorded of each sample, and where it ran."""
    if samples is None:
        return {}, None, [], None
    from llava.families import family_of
    from visual_region.importance.inputs import make_reader
    from visual_region.importance.run import measure_samples, sample_metrics

    reader = make_reader(args, samples)
    config = reader.model.config
    path = family_of(config).layer_path
    rows = measure_samples(reader, samples, metrics, path, args.batch_size, journal)
    return sample_metrics(rows, metrics, args.resamples, args.seed), config, rows, str(reader.model.device)


def _marked(args: argparse.Namespace) -> tuple[int, ...]:
    from llava.model.builder import family_config
    from visual_region.layers import LayerSelection

    return LayerSelection.parse(args.mark, family_config(args.model_path)[1].num_hidden_layers).layers


def _region(config: Any, depth: int) -> list[int]:
    from types import SimpleNamespace

    from visual_region.surgery import region_now

    if isinstance(config, dict):
        config = SimpleNamespace(**{"num_hidden_layers": depth, **config})
    return list(region_now(config))


def _tokens(row: dict[str, Any]) -> dict[str, int]:
    from visual_region.importance.tokens import KINDS

    return dict(zip(KINDS, row["tokens"], strict=True))


def _data(samples: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    totals = [_tokens(row) for row in rows]
    return {
        "file": samples.path,
        "sha256": samples.sha256,
        "samples": len(rows),
        "with_images": samples.with_images,
        "captions": samples.captions,
        "tokens": {kind: sum(t[kind] for t in totals) for kind in totals[0]},
    }


def _draw(scores: Any, marked: tuple[int, ...] | None) -> list[Path]:
    """Bars of every metric; and Figure 5's heat map where attention was measured."""
    from visual_region.pictures.bars import draw_bars
    from visual_region.pictures.heatmap import draw_heatmap

    bars, heatmap = _pictures(scores.path)
    draw_bars(scores, tuple(scores.content["region"]) if marked is None else marked, bars)
    if "image-attention" not in scores.names:
        return [bars]
    draw_heatmap([scores], "image-attention", heatmap)
    return [bars, heatmap]


def _table(scores: Any, metrics: list[str]) -> str:
    """A line a layer: each metric's value, with half the width of its interval."""
    lines = ["layer  " + "  ".join(f"{name:>18s}" for name in metrics)]
    region = set(scores.content["region"])
    for i in range(scores.num_layers):
        cells = []
        for name in metrics:
            entry = scores.entry(name)
            text = f"{entry['values'][i]:.4g}"
            if "low" in entry:
                text += f" ± {(entry['high'][i] - entry['low'][i]) / 2:.1g}"
            cells.append(f"{text:>18s}")
        lines.append(f"{i:5d}{'*' if i in region else ' '} {'  '.join(cells)}")
    bounded = ["± half the width of the 95% interval"] * any("low" in scores.entry(name) for name in metrics)
    return "\n".join([*lines, "; ".join(["* tuned", *bounded])])
