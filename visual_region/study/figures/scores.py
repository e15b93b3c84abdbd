"""What the figures of scores share: their panels, units, and what is said of their questions."""

from collections.abc import Mapping, Sequence
from typing import Any

from visual_region.study.board import Board
from visual_region.study.figures.drawing import range_text
from visual_region.study.samples import Column, Row, Sample
from visual_region.study.statistics import Estimate

KEPT = 0.98
"""The share of the score of all layers that the paper marks (Figure 2)."""
SHARE, PERPLEXITY = "score, %", "perplexity"


def panels_of(board: Board) -> dict[str, tuple[Column, ...]]:
    """Title -> columns: a panel for the average, if there are two columns or more to average, and one for each."""
    panels = {board.title_of(column.name): (column,) for column in board.columns}
    average = {f"average of {len(board.averaged)}": board.averaged} if len(board.averaged) > 1 else {}
    return average | panels


def value_of(board: Board, row: Row, columns: Sequence[Column]) -> Estimate | None:
    """The row's average over the columns; None if it lacks one of them."""
    return board.value(row, columns) if all(board.sample(row, column) for column in columns) else None


def unit_in(board: Board, columns: Sequence[Column]) -> str:
    """What an axis of these columns has, as `Board.value` gives it."""
    if board.is_log(columns[0]):
        return PERPLEXITY
    samples = (sample for row in board.rows for column in columns if (sample := board.sample(row, column)))
    return SHARE if all(sample.share for sample in samples) else "score"


def questions_text(boards: Sequence[Board]) -> str:
    """How many questions a score is of, such as "400 questions in each column"."""
    samples: list[Sample | None] = [b.sample(row, column) for b in boards for row in b.rows for column in b.columns]
    return f"{range_text((sample.questions for sample in samples if sample), 'question')} in each column"


def draw_line(axis: Any, places: Sequence[float], found: Sequence[Estimate], style: Mapping[str, Any]) -> None:
    """Points with their intervals, joined by a line."""
    values = [estimate.value for estimate in found]
    ends = [(e.value, e.value) if e.low is None or e.high is None else (e.low, e.high) for e in found]
    # Rounding can put the end of an interval on the wrong side of the value.
    below = [max(value - low, 0.0) for value, (low, _) in zip(values, ends, strict=True)]
    above = [max(high - value, 0.0) for value, (_, high) in zip(values, ends, strict=True)]
    axis.errorbar(places, values, yerr=[below, above], capsize=1.8, elinewidth=0.8, **style)
