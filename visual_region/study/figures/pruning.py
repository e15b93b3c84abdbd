"""Figure 1, right, and Figure 4: score with layers removed, of models tuned in all layers and in a region."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.ticker import MaxNLocator

from visual_region.curve_file import ANYWHERE, OUTSIDE, read_curve
from visual_region.pictures.figure import COLUMN, PAGE, legend_below, new_figure, style_of
from visual_region.study.board import Board
from visual_region.study.figures.drawing import (
    Drawing,
    NothingToDraw,
    across_of,
    intervals_text,
    label_of,
    seeds_text,
    with_file,
    wrapped,
    wrapped_all,
)
from visual_region.study.figures.scores import draw_line, panels_of, questions_text, unit_in, value_of, visual
from visual_region.study.results import CURVE_FILE, CellResult
from visual_region.study.samples import Column, Row, columns_of, rows_of

_PANELS = 3
"""At most so many next to each other."""
_DODGE = 0.08
"""Between lines, in layers, so that whiskers do not lie on each other."""

Boards = Mapping[int, Board]
"""Number of removed layers -> the scores of all rows without so many."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """Figure 4: a panel for each column, a line for each row."""
    rows, missing = with_file(results, "curve", CURVE_FILE)
    # As in the paper, the first line, a solid one, is of the model tuned in a region.
    rows.sort(key=lambda row: row.tunes_all)
    boards = _boards(rows, columns)
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
        "Score after the removal of the least important layers: outside the tuned region, or, of a model tuned in "
        f"all layers, of any. {seeds_text(rows)}, {questions_text(list(boards.values()))}; bars: "
        f"{intervals_text(rows)}. Nothing is trained after the removal."
    )
    return Drawing(figure, caption, [*missing, *_left_out(boards)])


def draw_all_layers(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """Figure 1, right: the model tuned in all layers, a line for each column."""
    whole = [cell for row in rows_of(results) if row.tunes_all for cell in row.cells.values()]
    (row, *_), missing = with_file(whole, "curve", CURVE_FILE)
    boards = _boards([row], columns)
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
        f"Score of the model tuned in all layers ({label_of(row)}) after the removal of its least important layers. "
        f"{seeds_text([row])}, {questions_text(list(boards.values()))}; bars: {intervals_text([row])}."
    )
    return Drawing(figure, caption, [*missing, *_left_out(boards)])


def _boards(rows: Sequence[Row], columns: Sequence[str]) -> Boards:
    """The scores of each number of removed layers, as if they were those of the cells.

    Raises:
        NothingToDraw: the curves are of none of the columns.
    """
    found: dict[int, list[CellResult]] = {}
    for row in rows:
        for cell in row.cells.values():
            for curve in read_curve(cell.folder / CURVE_FILE).checkpoints[:1]:
                for point in curve.line(ANYWHERE if row.tunes_all else OUTSIDE):
                    found.setdefault(point.removed, []).append(replace(cell, reports=point.reports))
    # A curve can be of benchmarks that the cells were not evaluated on.
    measured = {name for cells in found.values() for cell in cells for name in cell.reports}
    asked = visual([*columns, *sorted(measured - {column.benchmark for column in columns_of(columns)})])
    boards = {removed: Board(cells, asked) for removed, cells in sorted(found.items())}
    if 0 not in boards or not boards[0].columns:
        raise NothingToDraw(f"no {CURVE_FILE} has a score of the whole model")
    return boards


def _line(
    axis: Any, boards: Boards, row: Row, columns: Sequence[Column], style: Mapping[str, Any], offset: float
) -> list[int]:
    """Draws a row's average over columns; returns the numbers of removed layers that it lacks."""
    values = {removed: value_of(board, row, columns) for removed, board in boards.items()}
    found = {removed: value for removed, value in values.items() if value is not None}
    draw_line(axis, [removed + _DODGE * offset for removed in found], list(found.values()), style)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", alpha=0.3)
    return [removed for removed, value in values.items() if value is None]


def _left_out(boards: Boards) -> list[str]:
    return list(dict.fromkeys(text for board in boards.values() for text in board.left_out))
