"""`python -m visual_region picture`: draws score files and pruning curves."""

import argparse
import json
from pathlib import Path
from typing import Any

from llava.outputs import PICTURE, check_files
from visual_region.layers import LayerSelection
from visual_region.pictures.bars import draw_bars
from visual_region.pictures.curves import draw_curves
from visual_region.pictures.heatmap import draw_heatmap
from visual_region.scores import ScoreError, ScoreFile


def run(args: argparse.Namespace) -> None:
    check_files({"--output": (args.output, PICTURE)}, args.files)
    names = args.names.split(",") if args.names else None
    if names and len(names) != len(args.files):
        raise ScoreError(f"--names has {len(names)} titles for {len(args.files)} files")
    if args.kind == "bars":
        _bars(args)
    elif args.kind == "heatmap":
        files = [ScoreFile.read(file) for file in args.files]
        draw_heatmap(files, args.metric or "image-attention", args.output, names)
    else:
        titles = names or [str(Path(file).with_suffix("")) for file in args.files]
        draw_curves(list(zip(titles, map(_read_curve, args.files), strict=True)), args.output)
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


def _read_curve(file: str) -> list[dict[str, Any]]:
    try:
        entries = json.loads(Path(file).read_text(encoding="utf-8"))
        if not entries or not all({"removed", "protected", "accuracy"} <= set(entry) for entry in entries):
            raise ValueError("no entries with removed, protected and accuracy")
    except (OSError, ValueError, TypeError) as error:
        raise ScoreError(f"{file} is not a curve of `python -m visual_region curve` ({error})") from error
    return entries
