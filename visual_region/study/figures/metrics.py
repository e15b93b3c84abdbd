"""Importance of the layers by every metric, with its spread over the seeds of the training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from llava.palette import OTHER
from visual_region.importance import METRICS
from visual_region.pictures.figure import COLUMN, PAGE, layer_ticks, new_figure, title_of, unit_of
from visual_region.scores import ScoreFile
from visual_region.study.figures.drawing import Drawing, NothingToDraw, range_text, with_file, wrapped
from visual_region.study.missing import label_of
from visual_region.study.results import SCORES_FILE, CellResult

Seeds = Mapping[int, Mapping[str, Any]]
"""Seed -> a metric's entry in the score file of that training."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """For each metric its mean over the seeds of one row, and below it a heat map of the seeds by layers."""
    (row, *others), _ = with_file(results, None, SCORES_FILE)
    files = {seed: ScoreFile.read(cell.folder / SCORES_FILE) for seed, cell in row.cells.items()}
    every = {name: {seed: file.entry(name) for seed, file in files.items() if name in file.names} for name in METRICS}
    panels = {name: seeds for name, seeds in every.items() if seeds}
    if not panels:
        raise NothingToDraw(f"the {SCORES_FILE} of {label_of(row)} has none of the metrics {', '.join(METRICS)}")
    missing = [
        f"no {title_of(name)} of seed {seed}" for name, seeds in panels.items() for seed in files if seed not in seeds
    ]
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    strip = 0.08 + 0.11 * len(files)
    # Lines and strips take turns going down.
    size = (PAGE if across > 1 else COLUMN, (1.45 + strip) * down)
    figure, axes = new_figure(2 * down, across, *size, height_ratios=[0.9, strip] * down)
    grid = np.reshape(axes, (down, 2, across)).swapaxes(1, 2).reshape(-1, 2)
    for (line, below), (name, seeds) in zip(grid, panels.items(), strict=False):
        line.set_title(wrapped(title_of(name), 40))
        line.set_ylabel(wrapped(unit_of(name), 16))
        _panel(line, below, seeds)
    for axis in grid[len(panels) :].flat:
        axis.set_axis_off()
    samples = (entry["samples"] for seeds in panels.values() for entry in seeds.values() if "samples" in entry)
    counted = range_text(samples, "sample")
    also = f" Also scored: {', '.join(map(label_of, others))}." if others else ""
    caption = (
        f"Importance of each layer in the models of {label_of(row)}. Line: mean over the seeds of the training; band: "
        "from the lowest to the highest seed (of one seed: the 95% interval over its samples). Below: every seed, from "
        f"the metric's lowest value (dark) to its highest (bright). {range_text([len(files)], 'seed')}"
        f"{counted and f', {counted} for each'}.{also}"
    )
    return Drawing(figure, caption, missing)


def _panel(line: Any, below: Any, seeds: Seeds) -> None:
    values = np.array([entry["values"] for entry in seeds.values()])
    depth = values.shape[1]
    if len(seeds) > 1:
        low, high = values.min(0), values.max(0)
    else:
        (entry,) = seeds.values()
        low, high = (entry.get(end, entry["values"]) for end in ("low", "high"))
    line.fill_between(range(depth), low, high, color=OTHER, alpha=0.25, linewidth=0)
    line.plot(range(depth), values.mean(0), color=OTHER, marker="o", markersize=2)
    line.set_xlim(-0.5, depth - 0.5)
    line.tick_params(labelbottom=False)
    line.yaxis.set_major_locator(MaxNLocator(4))
    below.imshow(values, aspect="auto", cmap="viridis", interpolation="nearest")
    layer_ticks(below, depth, 16)
    line.set_xticks(below.get_xticks())
    below.set_yticks(range(len(seeds)), [f"seed {seed}" for seed in seeds])
    below.tick_params(length=0)
