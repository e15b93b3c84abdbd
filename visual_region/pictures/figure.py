"""What all pictures share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.figure import Figure

from llava.files import written_whole
from visual_region.importance import METRICS


def new_figure(rows: int, columns: int, width: float, height: float, used: int | None = None) -> tuple[Figure, Any]:
    """A figure of `width` by `height` inches and its first `used` axes (default: all); the others are not drawn."""
    figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)
    used = axes.size if used is None else used
    for axis in axes.flat[used:]:
        axis.set_axis_off()
    return figure, axes.flat[:used]


def layer_ticks(axes: Any, depth: int) -> None:
    """Makes the x axis one of layers, with a tick for every layer if there is room, else every 2, 4, 5, 10 or 20."""
    step = next((s for s in (1, 2, 4, 5, 10) if depth / s <= 22), 20)
    axes.set_xticks(range(0, depth, step))
    axes.tick_params(labelsize=7)
    axes.set_xlabel("layer", fontsize=8)


def unit_of(metric: str) -> str:
    """The unit of a metric, or of a detail such as bi-text or angular-last; empty if it is not known."""
    near = [name for name in METRICS if metric == name or metric.startswith(f"{name}-")]
    return METRICS[max(near, key=len)].unit if near else ""


def title_of(metric: str) -> str:
    return METRICS[metric].title if metric in METRICS else metric


def save(figure: Figure, path: str | Path) -> None:
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    pyplot.close(figure)


def shortened(names: Sequence[str], most: int = 40) -> list[str]:
    """Names cut at the front to fit a label; whole if the ends are not unique."""
    short = [name if len(name) <= most else f"…{name[1 - most :]}" for name in names]
    return short if len(set(short)) == len(set(names)) else list(names)
