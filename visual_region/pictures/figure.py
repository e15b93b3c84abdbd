"""What all pictures share: drawing without a display, colours, and files written whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.figure import Figure

from llava.files import written_whole

PLAIN, MARKED, OTHER = "#9aa7b5", "#c8553d", "#3b6ea5"
"""Layers; marked layers; a second series."""


def new_figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    """A figure of `width` by `height` inches and its axes, always a 2-D array `(rows, columns)`."""
    return pyplot.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)


def layer_ticks(axis: Any, depth: int) -> None:
    """Ticks for layers 0..depth-1: every layer if there is room, else every 2, 4, 5 or 10."""
    step = next((s for s in (1, 2, 4, 5, 10) if depth / s <= 22), 20)
    axis.set_ticks(range(0, depth, step))


def save(figure: Figure, path: str | Path) -> None:
    """Writes a PNG, whole or not at all, and forgets the figure."""
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    pyplot.close(figure)


def shortened(names: Sequence[str], most: int = 40) -> list[str]:
    """Names cut at the front, where paths are alike, to fit a label; whole if the ends are not unique."""
    short = [name if len(name) <= most else f"…{name[1 - most :]}" for name in names]
    return short if len(set(short)) == len(set(names)) else list(names)
