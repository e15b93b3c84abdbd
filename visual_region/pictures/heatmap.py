"""The paper's Figure 5: a metric by samples and layers, one panel per data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from llava.names import count, numbered
from visual_region.pictures.figure import layer_ticks, new_figure, save, title_of, unit_of
from visual_region.scores import ScoreError, ScoreFile


def samples_of(files: Sequence[ScoreFile], metric: str) -> list[np.ndarray]:
    """float64 `(samples, layers)` of each file's samples that have the metric; raises `ScoreError` for two depths."""
    depths = {scores.num_layers for scores in files}
    if len(depths) > 1:
        raise ScoreError(f"one heat map needs models of one depth; these have {sorted(depths)} layers")
    every = [scores.scores(metric).per_sample.numpy() for scores in files]
    return [rows[~np.isnan(rows).any(axis=1)] for rows in every]


def heat_panels(axes: Sequence[Any], panels: Sequence[np.ndarray], ticks: int = 22) -> Any:
    """Draws samples by layers in one scale of colours; returns the last image, for the bar of colours.

    Args:
        panels: `(samples, layers)` for each of `axes`.
        ticks: at most so many layers have a number.
    """
    low, high = np.percentile(np.concatenate([panel.ravel() for panel in panels]), [0, 99.5])
    for axis, panel in zip(axes, panels, strict=True):
        image = axis.imshow(panel, aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
        layer_ticks(axis, panel.shape[1], ticks)
        axis.yaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))
    return image


def colour_bar(figure: Any, image: Any, axes: Sequence[Any], label: str) -> None:
    """The scale of colours at the right of all panels."""
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def draw_heatmap(files: Sequence[ScoreFile], metric: str, path: str | Path, names: Sequence[str] | None = None) -> None:
    """Writes the picture, one panel per score file of the same depth; `names` default to those of the data files."""
    panels = samples_of(files, metric)
    names = numbered(names or [Path((s.content.get("data") or {}).get("file", s.path)).stem for s in files])
    width = max(3.2, 0.14 * files[0].num_layers + 1.0)
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(rows, columns, width * columns + 1.2, 3.4 * rows + 0.8, len(panels))
    image = heat_panels(axes, panels)
    for axis, panel, name in zip(axes, panels, names, strict=True):
        axis.set_title(f"{name}, {count(len(panel), 'sample')}", fontsize=9)
        axis.set_ylabel("sample", fontsize=8)
    unit = f" ({unit_of(metric)})" if unit_of(metric) else ""
    colour_bar(figure, image, axes, f"{title_of(metric)}{unit}")
    save(figure, path)
