"""Importance of the layers by every metric, with its spread over the seeds of the training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from llava.palette import OTHER
from visual_region.importance import METRICS
from visual_region.pictures.figure import PAGE, layer_ticks, new_figure, title_of, unit_of
from visual_region.scores import ScoreFile
from visual_region.study.figures.drawing import Drawing, label_of, range_text, seeds_text, with_file, wrapped
from visual_region.study.results import SCORES_FILE, CellResult

_ROWS = 3
"""At most so many rows of the study are next to each other."""

Seeds = Mapping[int, Mapping[str, Any]]
"""Seed -> a metric's entry in the score file of that training."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """For each metric its mean over the seeds, and below it a heat map of the seeds by layers."""
    every, missing = with_file(results, None, SCORES_FILE)
    rows = every[:_ROWS]
    if left := every[_ROWS:]:
        missing.append(f"rows for which there is no room: {', '.join(map(label_of, left))}")
    files = {
        label_of(row): {seed: ScoreFile.read(cell.folder / SCORES_FILE) for seed, cell in row.cells.items()}
        for row in rows
    }
    names = [name for name in METRICS if any(name in file.names for own in files.values() for file in own.values())]
    panels: dict[tuple[str, str], Seeds] = {}
    for name in names:
        for row, own in files.items():
            panels[row, name] = {seed: file.entry(name) for seed, file in own.items() if name in file.names}
            if lost := own.keys() - panels[row, name].keys():
                missing.append(f"{title_of(name)} of {row} with seed {', '.join(map(str, sorted(lost)))}")
    across = len(rows) if len(rows) > 1 else min(2, len(names))
    down = -(-len(panels) // across)
    strip = 0.08 + 0.11 * max(map(len, files.values()))
    # Lines and strips take turns going down.
    figure, axes = new_figure(2 * down, across, PAGE, (1.45 + strip) * down, height_ratios=[0.9, strip] * down)
    grid = np.reshape(axes, (down, 2, across)).swapaxes(1, 2).reshape(-1, 2)
    for (line, below), ((row, name), seeds) in zip(grid, panels.items(), strict=False):
        line.set_title("\n".join([wrapped(row)] * (len(rows) > 1) + [title_of(name)]))
        line.set_ylabel(unit_of(name))
        if seeds:
            _panel(line, below, seeds)
    for axis in grid[len(panels) :].flat:
        axis.set_axis_off()
    samples = (entry["samples"] for seeds in panels.values() for entry in seeds.values() if "samples" in entry)
    counted = range_text(samples, "sample")
    caption = (
        "Importance of each layer. Line: mean over the seeds of the training; band: from the lowest to the highest "
        "seed (of one seed: the 95% interval over its samples). Below: every seed, from the metric's lowest value "
        f"(dark) to its highest (bright). {seeds_text(rows)}{counted and f', {counted} for each'}."
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
    below.set_yticks(range(len(seeds)), [f"seed {seed}" for seed in seeds])
    below.tick_params(length=0)
