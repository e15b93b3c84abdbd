"""The study in one picture: which layers each row tunes, and what that costs in score against tuning all layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llava.palette import LINE, OTHER, PLAIN
from visual_region.pictures.figure import PAGE, legend_below, new_figure
from visual_region.pictures.stacks import stack_panel
from visual_region.study.figures.drawing import Drawing, bars_of, wrapped
from visual_region.study.results import CellResult

KEPT = 0.98
"""The paper's mark: so much of the score of all layers."""
_TIED = {"color": OTHER, "marker": "o", "markersize": 5}
_APART = {"color": LINE, "marker": "s", "markerfacecolor": "white"}
_WHOLE = {"color": PLAIN, "marker": "D", "markersize": 5}


def _stack(axis: Any, rows: Sequence[Sequence[CellResult]], depth: int) -> None:
    """The layers of each row; those of some seeds only are lighter."""
    tuned = [[np.mean([layer in (cell.cell.layers or ()) for cell in cells]) for layer in range(depth)] for cells in rows]
    stack_panel(axis, np.array(tuned), ticks=11, gap=0.6)
    axis.set_title("tuned layers")
    axis.set_yticks(np.arange(len(rows)) + 0.5, [wrapped(cells[0].cell.row) for cells in rows])
