"""Figure 2: score by the number of tuned layers, a line for each share of the data."""

from collections.abc import Sequence
from typing import Any

from llava.palette import LINE
from visual_region.pictures.figure import COLUMN, PAGE, legend_below, new_figure, style_of
from visual_region.study.board import Board
from visual_region.study.figures.by_depth import Lines, depth_axis, dodged, lines_of, rows_in, whole_of
from visual_region.study.figures.drawing import Drawing, NothingToDraw, across_of, intervals_text, seeds_text, wrapped
from visual_region.study.figures.scores import (
    KEPT,
    SHARE,
    draw_line,
    panels_of,
    questions_text,
    unit_in,
    value_of,
)
from visual_region.study.missing import share_label
from visual_region.study.results import CellResult
from visual_region.study.samples import Column, visual
from visual_region.study.tables.notes import notes

_PANELS = 3
"""At most so many next to each other."""
_MARK = {"linestyle": (0, (2, 2)), "linewidth": 0.8, "zorder": 0}
"""The line at `KEPT` of the score of all layers."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """A panel for each column, and before them one for their average."""
    lines, missing = lines_of(results, lambda result: bool(result.reports), "a score")
    rows = rows_in(lines)
    board = Board([cell for row in rows for cell in row.cells.values()], visual(columns))
    panels = panels_of(board)
    if not panels:
        raise NothingToDraw(f"no cell has a score in {', '.join(columns)}")
    across = across_of(len(panels), _PANELS)
    down = -(-len(panels) // across)
    width = PAGE if across > 1 else COLUMN
    figure, axes = new_figure(down, across, width, 1.75 * down + 0.25, len(panels))
    for place, (axis, (title, own)) in enumerate(zip(axes, panels.items(), strict=True)):
        _panel(axis, board, lines, own)
        axis.set_title(wrapped(title, 26))
        axis.set_ylabel(unit_in(board, own))
        depth_axis(axis, lines, width / across - 0.6)
        if place < len(panels) - across:
            axis.set_xlabel("")
    looks = {share_label(share): style_of(place) for place, share in enumerate(lines)}
    looks[f"{100 * KEPT:.0f}% of all layers"] = _MARK | {"color": LINE}
    legend_below(figure, looks, 4)
    caption = (
        "Score by the number of tuned layers, for each share of the training data. "
        f"{seeds_text(rows)}, {questions_text([board])}; bars: {intervals_text(rows)}. "
        f"Dashed: {100 * KEPT:.0f}% of the score of all layers with the same share of the data (all its seeds)."
    )
    return Drawing(figure, caption, [*missing, *notes(board, paired=False)])


def _panel(axis: Any, board: Board, lines: Lines, columns: Sequence[Column]) -> None:
    """Draws the average over columns of the rows that have all of them."""
    for place, points in enumerate(lines.values()):
        values = {size: value_of(board, row, columns) for size, row in points.items()}
        found = {size: value for size, value in values.items() if value is not None}
        draw_line(axis, dodged(found, place, len(lines)), list(found.values()), style_of(place))
        whole = whole_of(points)
        if whole and whole.number in found and unit_in(board, columns) == SHARE:
            axis.axhline(KEPT * found[whole.number].value, color=style_of(place)["color"], **_MARK)
    axis.grid(axis="y", alpha=0.3)
