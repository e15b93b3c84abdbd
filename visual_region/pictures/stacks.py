"""Layer selections, one row each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from llava.names import spec_labels
from llava.palette import EMPTY, LINE, MARKED
from visual_region.layers import LayerSelection
from visual_region.pictures.figure import layer_ticks, new_figure, save, shortened


def stack_panel(axis: Any, tuned: np.ndarray, ticks: int = 22, gap: float = 1.2) -> None:
    """Draws selections as rows of cells, the first on top; the middle of row i is at i + 0.5.

    Args:
        tuned: `(selections, layers)`: 1 for a layer that is chosen, 0 for one that is not; shares between have a colour
            between.
        ticks: at most so many layers have a number.
        gap: between the cells, in points.
    """
    colours = LinearSegmentedColormap.from_list("tuned", [EMPTY, MARKED])
    axis.pcolormesh(tuned, cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=gap)
    axis.invert_yaxis()
    layer_ticks(axis, tuned.shape[1], ticks)
    axis.set_xticks(axis.get_xticks() + 0.5, [f"{tick:.0f}" for tick in axis.get_xticks()], fontsize=7)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def draw_stacks(selections: Sequence[LayerSelection], path: str | Path, shares: Sequence[list[float]] = ()) -> None:
    """Writes the picture of selections of one depth; `shares` of resamples that choose a layer go into the cells."""
    depth = selections[0].num_layers
    chosen = np.array([[layer in selection for layer in range(depth)] for selection in selections], dtype=float)
    names = shortened(spec_labels([selection.spec for selection in selections]))
    label_width = 0.085 * max(map(len, names))
    # Wide enough for the title.
    width = max(5.0 if shares else 0.0, 0.26 * depth + label_width + 0.8)
    figure, (axis,) = new_figure(1, 1, width, 0.34 * len(selections) + 0.9 + 0.3 * bool(shares))
    stack_panel(axis, chosen)
    axis.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=8)
    for row, values in enumerate(shares):
        for layer, share in enumerate(values):
            if share >= 0.01:
                colour = "white" if chosen[row, layer] else LINE
                place = {"ha": "center", "va": "center", "fontsize": 6, "color": colour}
                axis.text(layer + 0.5, row + 0.5, f"{100 * share:.0f}", **place)
    if shares:
        figure.suptitle("% of resamples of the samples (not of trainings)\nin which a layer is chosen", fontsize=9)
    save(figure, path)
