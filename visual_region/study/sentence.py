"""The main sentence of a study: what a selection keeps of tuning all layers."""

from collections.abc import Sequence

from llava.names import count
from visual_region.layers import LayerSelection
from visual_region.study.board import Board
from visual_region.study.results import CellResult
from visual_region.study.samples import Row, StudyError, visual
from visual_region.study.statistics import BOTH

QUARTER = "sparse-uniform:25%"
"""The selection of the paper's claim."""


def result_sentence(
    results: Sequence[CellResult], columns: Sequence[str], reference: str | None = None, row: str | None = None
) -> str:
    """What a row keeps of the reference's average over the columns, with its 95% interval, as one sentence.

    Args:
        columns: BENCHMARK or BENCHMARK/PART; those of text do not count.
        reference: the row that it is compared with; default: the one that tunes all layers.
        row: default: the row that tunes the layers of `QUARTER`.

    Raises:
        StudyError: there is no such row, or it cannot be paired with the reference.
    """
    board = Board(results, visual(columns), None, reference)
    share = max((row.share for row in board.rows), default=100.0)
    rows = [one for one in board.rows if one.share == share and (one.name == row if row else is_quarter(one))]
    if not rows:
        raise StudyError(f"there is no row {row!r}" if row else f"no row tunes the layers of {QUARTER}")
    ours, theirs = rows[0], board.reference_of(rows[0])
    if theirs is None:
        raise StudyError(f"there is no row that tunes all layers with {share:g}% of the data to compare with")
    shared = [c for c in board.averaged if board.sample(ours, c) and board.sample(theirs, c)]
    kept = board.ratio(ours, theirs, shared) if shared else None
    if kept is None:
        raise StudyError(f"{ours.name} and {theirs.name} have no score of the same seed to compare")
    kept = kept.scaled(100)
    within = f"95% interval {kept.low:.1f} to {kept.high:.1f}" if kept.has_interval else "no interval"
    alone = "" if kept.covers == BOTH else f", over {kept.covers} only" if kept.covers else ""
    over = f"{count(len(shared), 'task')}, {count(kept.questions, 'question')} and {count(kept.seeds, 'seed')}"
    what = f"{count(ours.number, 'layer')} of {ours.depth}" if ours.number and ours.depth else "some of the layers"
    spread = ", spread over the depth," if is_quarter(ours) else f" ({ours.name})"
    return f"Tuning {what}{spread} keeps {kept.value:.1f}% ({within}{alone}; {over}) of the score of tuning all layers."


def is_quarter(row: Row) -> bool:
    """Whether a row tunes the layers that `QUARTER` means in its model."""
    if row.selection == QUARTER or not row.depth:
        return row.selection == QUARTER
    return row.layers == LayerSelection.parse(QUARTER, row.depth).layers
