"""Figure 1, right, and Figure 4: score with layers removed, of models tuned in a region and in all layers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.ticker import MaxNLocator

from visual_region.curve_file import ANYWHERE, OUTSIDE, read_curve
from visual_region.pictures.figure import COLUMN, PAGE, legend_below, new_figure, style_of
from visual_region.study.board import Board
from visual_region.study.figures.drawing import Drawing, NothingToDraw, label_of, seeds_text, with_file, wrapped
from visual_region.study.figures.scores import draw_line, panels_of, questions_text, unit_in, value_of
from visual_region.study.results import CURVE_FILE, CellResult
from visual_region.study.samples import Column, Row, columns_of

_PANELS = 3
"""At most so many next to each other."""

Boards = Mapping[int, Board]
"""Number of removed layers -> the scores of all rows without so many."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """Figure 4: a panel for each column, a line for each row; layers are removed outside the tuned region."""
    rows, missing = with_file(results, "curve", CURVE_FILE)
    boards = _boards(rows, columns)
    panels = panels_of(boards[0])
    across = min(_PANELS, len(panels))
    down = -(-len(panels) // across)
    figure, axes = new_figure(down, across, max(3.3, PAGE * across / _PANELS), 1.75 * down + 0.25, len(panels))
    for place, (axis, (title, own)) in enumerate(zip(axes, panels.items(), strict=True)):
        missing += [f"{title} of {lost}" for lost in _panel(axis, boards, rows, own)]
        axis.set_title(wrapped(title, 26))
        axis.set_ylabel(unit_in(boards[0], own))
        if place >= len(panels) - across:
            axis.set_xlabel("removed layers")
    handles = [axes[0].plot([], [], **style_of(place))[0] for place in range(len(rows))]
    legend_below(figure, handles, [wrapped(label_of(row)) for row in rows], 3)
    caption = (
        "Score after the removal of the layers of least angular distance: outside the tuned region, or, of a model "
        f"tuned in all layers, anywhere. {seeds_text(rows)}, {questions_text(list(boards.values()))}; bars: 95% "
        "intervals over questions and seeds. Nothing is trained after the removal."
    )
    return Drawing(figure, caption, missing)


def draw_all_layers(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """Figure 1, right: the models tuned in all layers, a line for each column."""
    rows, missing = with_file([r for r in results if r.cell.selection == "all"], "curve", CURVE_FILE)
