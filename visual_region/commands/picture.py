"""`python -m visual_region picture`: draws score files and pruning curves."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava.names import count, short_paths
from llava.outputs import PICTURE, check_files
from visual_region.curve_file import CheckpointCurve, read_curve
from visual_region.layers import LayerSelection
from visual_region.pictures.bars import draw_bars
from visual_region.pictures.curves import draw_curves
from visual_region.pictures.heatmap import draw_heatmap
from visual_region.scores import ScoreError, ScoreFile


def run(args: argparse.Namespace) -> None:
    check_files({"--output": (args.output, PICTURE)}, args.files)
    names = args.names.split(",") if args.names else None
    if names and args.kind != "curves" and len(names) != len(args.files):
        raise ScoreError(f"--names has {len(names)} titles for {len(args.files)} files")
    if args.kind == "bars":
        _bars(args)
    elif args.kind == "heatmap":
        files = [ScoreFile.read(file) for file in args.files]
        draw_heatmap(files, args.metric or "image-attention", args.output, names)
    else:
        _curves(args.files, names, args.output)
    print(f"picture written to {args.output}")


def _bars(args: argparse.Namespace) -> None:
    if len(args.files) > 1:
        raise ScoreError("bars are of one score file")
    scores = ScoreFile.read(args.files[0])
    region = scores.content.get("region") or ()
    marked = LayerSelection.parse(args.mark, scores.num_layers).layers if args.mark else region
    metrics = [name.strip() for name in args.metric.split(",")] if args.metric else None
    for metric in metrics or ():
        scores.entry(metric)
    draw_bars(scores, marked, args.output, metrics, args.mark or "")


def _curves(files: Sequence[str], names: Sequence[str] | None, output: str) -> None:
    """Names of checkpoints are by default those of the files; in a file of several, their own."""
    curves: list[tuple[str, CheckpointCurve]] = []
    for file in files:
        found = read_curve(file).checkpoints
        own = short_paths([curve.name for curve in found])
        plain = str(Path(file).with_suffix(""))
        curves += [(own[curve.name] if len(found) > 1 else plain, curve) for curve in found]
    if not any(point.reports for _, curve in curves for point in curve.points):
        raise ScoreError(f"{', '.join(files)}: no point has been measured yet")
    if names and len(names) != len(curves):
        raise ScoreError(f"--names has {len(names)} names for {count(len(curves), 'checkpoint')}")
    draw_curves(list(zip(names or [name for name, _ in curves], (curve for _, curve in curves), strict=True)), output)
