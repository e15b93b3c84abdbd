"""Figure 1, right, and Figure 4: score with layers removed, of models tuned in all layers and in a region."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from visual_region.pictures.figure import COLUMN, PAGE, legend_below, new_figure, style_of
from visual_region.study.board import Board
from visual_region.study.curves import curves_of
from visual_region.study.figures.drawing import (
    Drawing,
    NothingToDraw,
    across_of,
    intervals_text,
    seeds_text,
    with_file,
    wrapped,
    wrapped_all,
)
from visual_region.study.figures.scores import draw_line, panels_of, questions_text, unit_in, value_of
from visual_region.study.missing import label_of
from visual_region.study.results import CURVE_FILE, CellResult
from visual_region.study.samples import Column, Row, rows_of

_PANELS = 3
"""At most so many next to each other."""
_DODGE = 0.08
"""Between lines, in layers, so that whiskers do not lie on each other."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """Figure 4: a panel for each column, a line for each row."""
    rows, missing = with_file(results, "curve", CURVE_FILE)
    # As in the paper, the first line, a solid one, is of the model tuned in a region.
    rows.sort(key=lambda row: row.tunes_all)
    curves = curves_of(rows, columns)
    boards = curves.boards
    panels = panels_of(boards[0])
    across = across_of(len(panels), _PANELS)
    down = -(-len(panels) // across)
    figure, axes = new_figure(down, across, PAGE if across > 1 else COLUMN, 1.75 * down + 0.25, len(panels))
    for place, (axis, (title, own)) in enumerate(zip(axes, panels.items(), strict=True)):
        for i, row in enumerate(rows):
            lost = _line(axis, boards, row, own, style_of(i), i - (len(rows) - 1) / 2)
            missing += [f"{title} is not measured for {label_of(row)} without {removed} layers" for removed in lost]
        axis.set_title(wrapped(title, 26))
        axis.set_ylabel(unit_in(boards[0], own))
        if place >= len(panels) - across:
            axis.set_xlabel("removed layers")
    legend_below(figure, {name: style_of(i) for i, name in enumerate(wrapped_all(map(label_of, rows)))}, 3)
    caption = (
        f"Score after the removal of the least important layers{curves.order}: outside the tuned region, or, of a "
        f"model tuned in all layers, of any. {seeds_text(rows)}, {questions_text(list(boards.values()))}; bars: "
        f"{intervals_text(rows)}. Nothing is trained after the removal."
    )
    return Drawing(figure, caption, [*missing, *_left_out(boards)])


def draw_all_layers(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """Figure 1, right: the model tuned in all layers, a line for each column."""
    whole = [cell for row in rows_of(results) if row.tunes_all for cell in row.cells.values()]
    (row, *_), missing = with_file(whole, "curve", CURVE_FILE)
    curves = curves_of([row], columns)
    boards = curves.boards
    panels = {title: own for title, own in panels_of(boards[0]).items() if set(own) <= set(boards[0].averaged)}
    if not panels:
        raise NothingToDraw(f"no {CURVE_FILE} has a score in percent")
    figure, (axis,) = new_figure(1, 1, COLUMN, 2.2 + 0.17 * -(-len(panels) // 2))
    for i, (title, own) in enumerate(panels.items()):
        lost = _line(axis, boards, row, own, style_of(i), i - (len(panels) - 1) / 2)
        missing += [f"{title} is not measured without {removed} layers" for removed in lost]
    axis.set_ylabel(unit_in(boards[0], boards[0].averaged))
    axis.set_xlabel("removed layers")
    legend_below(figure, {name: style_of(i) for i, name in enumerate(wrapped_all(panels, 24))}, 2)
    caption = (
        f"Score of the model tuned in all layers ({label_of(row)}) after the removal of its least important layers"
        f"{curves.order}. {seeds_text([row])}, {questions_text(list(boards.values()))}; bars: {intervals_text([row])}."
    )
    return Drawing(figure, caption, [*missing, *_left_out(boards)])


def _line(
    axis: Any, boards: Mapping[int, Board], row: Row, columns: Sequence[Column], style: Mapping[str, Any], offset: float
) -> list[int]:
    """Draws a row's average over columns; returns the numbers of removed layers that it lacks."""
    values = {removed: value_of(board, row, columns) for removed, board in boards.items()}
    found = {removed: value for removed, value in values.items() if value is not None}
    draw_line(axis, [removed + _DODGE * offset for removed in found], list(found.values()), style)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", alpha=0.3)
    return [removed for removed, value in values.items() if value is None]


def _left_out(boards: Mapping[int, Board]) -> list[str]:
    return list(dict.fromkeys(text for board in boards.values() for text in board.left_out))
