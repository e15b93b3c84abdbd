"""The study in one picture: which layers each row tunes, and its score next to that of tuning all layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from llava.palette import LINE, OTHER, PLAIN
from visual_region.pictures.figure import PAGE, legend_below, new_figure
from visual_region.pictures.stacks import stack_panel
from visual_region.study.board import Board
from visual_region.study.figures.drawing import Drawing, NothingToDraw, intervals_text, range_text, wrapped_all
from visual_region.study.figures.scores import KEPT, questions_text, value_of
from visual_region.study.missing import label_of
from visual_region.study.results import CellResult
from visual_region.study.samples import Row, visual
from visual_region.study.sentence import is_quarter
from visual_region.study.statistics import Estimate
from visual_region.study.tables.cost import hours_ratio
from visual_region.study.tables.notes import notes

WHOLE, TIED, APART = "all layers", "cannot be told from all layers", "differs from all layers"
_LOOKS = {
    WHOLE: {"color": LINE, "marker": "D", "markersize": 5},
    TIED: {"color": OTHER, "marker": "o", "markersize": 5},
    APART: {"color": LINE, "marker": "s", "markerfacecolor": "white"},
}
_MARK = {"color": PLAIN, "linestyle": (0, (2, 2)), "linewidth": 0.9}
_KEPT, _COST = 34, 66
"""Where the columns of numbers end, in points to the right of the panels."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """The rows of Table 1, the best first: tuned layers, paired difference to all layers, score kept, and cost."""
    wanted = [r for r in results if "selections" in r.cell.experiments and r.cell.selection is not None]
    share = max((result.cell.share for result in wanted), default=100)
    wanted = [result for result in wanted if result.cell.share == share]
    board = Board(wanted, visual(columns))
    values = {row: value for row in board.rows if (value := value_of(board, row, board.averaged)) and row.depth}
    rows = sorted(values, key=lambda row: -values[row].value)
    whole = next((row for row in rows if row.name == board.reference), None)
    if whole is None:
        asked = ", ".join(column.name for column in visual(columns)) or "no column of images"
        raise NothingToDraw(f"no cell of the experiment selections that tunes all layers has all scores ({asked})")
    names = wrapped_all(map(label_of, rows))
    height = 1.25 + len(rows) * (0.08 + 0.11 * max(name.count("\n") + 1 for name in names))
    figure, (stack, points) = new_figure(1, 2, PAGE, height, width_ratios=[1, 1.1])
    _draw_stack(stack, rows)
    stack.set_yticks(np.arange(len(rows)) + 0.5, names)
    for label, row in zip(stack.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if is_quarter(row) else "normal")
    _draw_points(points, board, rows, whole)
    points.axvline(-(1 - KEPT) * values[whole].value, zorder=0, **_MARK)
    legend = {state: look | {"linestyle": "none"} for state, look in _LOOKS.items()}
    legend_below(figure, legend | {f"{100 * KEPT:.0f}% of the score of all layers": _MARK}, 4)
    caption = (
        f"The rows of Table 1, sorted by the average over {len(board.averaged)} columns "
        f"({', '.join(column.title for column in board.averaged)}). Left: the tuned layers; lighter ones are tuned "
        "with some seeds only. Right: the difference to tuning all layers, paired by question and seed, with "
        f"{intervals_text(rows)}. Score and time (device hours of the training): in percent of those of all "
        f"layers, which score {values[whole].value:.1f}%. Bold: a quarter of the layers, spread over the depth. "
        f"{range_text((value.seeds for value in values.values()), 'seed')}, {questions_text([board])}."
    )
    return Drawing(figure, caption, notes(board))


def _draw_stack(axis: Any, rows: Sequence[Row]) -> None:
    tuned = np.zeros((len(rows), max(row.depth for row in rows)))
    for place, row in enumerate(rows):
        for layers, seeds in row.choices.items():
            tuned[place, list(layers)] += seeds / sum(row.choices.values())
    stack_panel(axis, tuned, ticks=11, gap=min(0.8, 20 / tuned.shape[1]))
    axis.set_title("tuned layers")


def _draw_points(axis: Any, board: Board, rows: Sequence[Row], whole: Row) -> None:
    """A point for each row at the height of its stack, and its numbers to the right."""
    axis.axvline(0, color=LINE, linewidth=0.8, zorder=0)
    for place, row in enumerate(rows):
        found = board.difference(row, whole, board.averaged)
        ratio = board.ratio(row, whole, board.averaged)
        if found is not None:
            ends = [end - found.value for end in (found.low, found.high) if end is not None]
            reach = [[abs(end)] for end in ends] or None
            look = _LOOKS[WHOLE if row is whole else _state(found)]
            axis.errorbar(found.value, place + 0.5, xerr=reach, capsize=2, linestyle="none", **look)
        _number(axis, place, "–" if ratio is None else f"{100 * ratio.value:.1f}%", _KEPT)
        _number(axis, place, _cost(row, whole), _COST)
    _heading(axis, "score", _KEPT)
    _heading(axis, "time", _COST)
    axis.set_ylim(len(rows), 0)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x", alpha=0.3)
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.set_xlabel("score − score of all layers, points")


def _state(found: Estimate) -> str:
    """Whether a difference can be told from 0; one without an interval can, if it is not 0."""
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    return TIED if low <= 0 <= high else APART


def _cost(row: Row, whole: Row) -> str:
    ratio = hours_ratio(row, whole)
    return "–" if ratio is None else f"{100 * ratio.value:.0f}%"


def _number(axis: Any, place: int, text: str, at: float) -> None:
    where = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "annotation_clip": False}
    axis.annotate(text, (1, place + 0.5), (at, 0), ha="right", va="center", fontsize=7, **where)


def _heading(axis: Any, text: str, at: float) -> None:
    where = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axis.annotate(text, (1, 1), (at, 4), ha="right", va="bottom", **where)
