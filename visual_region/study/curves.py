"""The pruning curves of a study: the scores of its rows with layers removed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from visual_region.curve_file import ANYWHERE, LIST, OUTSIDE, read_curve
from visual_region.importance import METRICS
from visual_region.study.board import Board
from visual_region.study.results import CURVE_FILE, CellResult
from visual_region.study.samples import Column, Row, StudyError, columns_of, visual


@dataclass(frozen=True)
class PruningCurves:
    """The curves of several rows.

    Attributes:
        boards: number of removed layers -> the scores of all rows without so many.
        removed: (row, share of the data) -> seed -> number of removed layers -> these layers, 0-based.
        order: how the layers were chosen, as a clause in brackets; "" if no file says so.
        of_text: benchmarks of text that the curves have and the boards leave out.
    """

    boards: Mapping[int, Board]
    removed: Mapping[tuple[str, float], Mapping[int, Mapping[int, tuple[int, ...]]]]
    order: str
    of_text: Sequence[str]


def curves_of(rows: Sequence[Row], columns: Sequence[str], reference: str | None = None) -> PruningCurves:
    """Reads the curves of rows: outside the region, or, of a model tuned in all layers, of any layers.

    Args:
        columns: BENCHMARK or BENCHMARK/PART. Benchmarks that only the curves were measured on are added.
        reference: the row that the others are compared with; default: the one that tunes all layers.

    Raises:
        StudyError: no curve has a score of the whole model in a benchmark of images.
        ScoreError: a file is not a curve.
    """
    found: dict[int, list[CellResult]] = {}
    removed: dict[tuple[str, float], dict[int, dict[int, tuple[int, ...]]]] = {}
    orders: dict[str, None] = {}
    for row in rows:
        for seed, cell in row.cells.items():
            for curve in read_curve(cell.folder / CURVE_FILE).checkpoints[:1]:
                if curve.order:
                    orders[_order_text(curve.order.by)] = None
                for point in curve.line(ANYWHERE if row.tunes_all else OUTSIDE):
                    found.setdefault(point.removed, []).append(replace(cell, reports=point.reports))
                    removed.setdefault((row.name, row.share), {}).setdefault(seed, {})[point.removed] = point.layers
    # A curve can be of benchmarks that the cells were not evaluated on.
    measured = {name for cells in found.values() for cell in cells for name in cell.reports}
    asked = [*columns, *sorted(measured - {column.benchmark for column in columns_of(columns)})]
    boards = {number: Board(cells, visual(asked), None, reference) for number, cells in sorted(found.items())}
    if 0 not in boards or not boards[0].columns:
        raise StudyError(f"no {CURVE_FILE} has a score of the whole model in a benchmark of images")
    of_text = [name for name in sorted(measured) if Column(name).is_text]
    order = f" ({' or '.join(orders)})" if orders else ""
    return PruningCurves(boards, removed, order, of_text)


def _order_text(by: str) -> str:
    if by == LIST:
        return "in a given order"
    return f"the lowest {METRICS[by].title} first" if by in METRICS else f"the lowest {by} first"
