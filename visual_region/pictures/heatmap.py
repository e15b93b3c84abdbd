"""The paper's Figure 5: a metric by samples and layers, one panel per data set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from llava.names import count, numbered
from visual_region.pictures.figure import layer_ticks, new_figure, save, title_of, unit_of
from visual_region.scores import ScoreError, ScoreFile


def draw_heatmap(files: Sequence[ScoreFile], metric: str, path: str | Path, names: Sequence[str] | None = None) -> None:
    """Writes the picture, one panel per score file of the same depth; `names` default to those of the data files."""
    depths = {scores.num_layers for scores in files}
    if len(depths) > 1:
        raise ScoreError(f"one heat map needs models of one depth; these have {sorted(depths)} layers")
    # float64 `(samples, layers)` of the samples that have the metric.
    every = [scores.scores(metric).per_sample.numpy() for scores in files]
    panels = [rows[~np.isnan(rows).any(axis=1)] for rows in every]
    names = numbered(names or [Path((s.content.get("data") or {}).get("file", s.path)).stem for s in files])
    low, high = np.percentile(np.concatenate([panel.ravel() for panel in panels]), [0, 99.5])
    depth = depths.pop()
    width = max(3.2, 0.14 * depth + 1.0)
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(rows, columns, width * columns + 1.2, 3.4 * rows + 0.8, len(panels))
    for axis, panel, name in zip(axes, panels, names, strict=True):
        image = axis.imshow(panel, aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
        layer_ticks(axis, depth)
        axis.yaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))
        axis.set_title(f"{name}, {count(len(panel), 'sample')}", fontsize=9)
        axis.set_ylabel("sample", fontsize=8)
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
    unit = f" ({unit_of(metric)})" if unit_of(metric) else ""
    bar.set_label(f"{title_of(metric)}{unit}", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    save(figure, path)
