"""What some cells of a study lack that a table or a figure is made of."""

from collections.abc import Sequence

from llava.names import count, listed, some
from visual_region.study.results import CellResult
from visual_region.study.samples import Row, rows_of


def rows_with(results: Sequence[CellResult], experiment: str | None, pattern: str) -> tuple[list[Row], list[str]]:
    """The rows of the cells that have a file, those of all layers first, and what the cells of the experiment lack.

    Args:
        experiment: whose cells should have the file; None names no cell without it.
        pattern: of the file's path below a cell's folder.
    """
    having = [result for result in results if any(result.folder.glob(pattern))]
    wanted = [result for result in results if experiment in result.cell.experiments and result not in having]
    rows = sorted(rows_of(having), key=lambda row: not row.tunes_all)
    return rows, lacking(wanted, pattern) + uneven(rows)


def lacking(cells: Sequence[CellResult], what: str) -> list[str]:
    """Says which cells have no `what`; nothing for no cells."""
    names = some(result.cell.name for result in cells)
    return [f"{count(len(cells), 'cell')} without {what}: {names}"] if cells else []


def uneven(rows: Sequence[Row]) -> list[str]:
    """Says which rows lack seeds that other rows of the same share of the data have."""
    found = []
    for row in rows:
        others = {seed for other in rows if other.share == row.share and not other.is_backbone for seed in other.cells}
        if not row.is_backbone and (lost := sorted(others - row.cells.keys())):
            found.append(f"{label_of(row)} lacks {listed('seed', lost)}")
    return found


def label_of(row: Row) -> str:
    """The row's name, with its share of the data if that is not all."""
    return row.name if row.share == 100 else f"{row.name} ({share_label(row.share)})"


def share_label(share: float) -> str:
    return "all data" if share == 100 else f"{share:g}% of the data"
