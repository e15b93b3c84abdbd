"""The paper's tables from any set of cells: scores, shares of the data, text, pruning, cost, importance of layers."""

from collections.abc import Callable, Sequence
from pathlib import Path

from llava.eval.benchmarks import BENCHMARKS
from visual_region.scores import ScoreError
from visual_region.study.board import Board
from visual_region.study.results import CellResult
from visual_region.study.samples import Column, StudyError, columns_of, visual
from visual_region.study.tables.cost import cost_page
from visual_region.study.tables.importance import importance_page
from visual_region.study.tables.page import Page
from visual_region.study.tables.pruning import pruning_page
from visual_region.study.tables.reversion import reversion_page
from visual_region.study.tables.scores import TABLES, score_page


def write_tables(
    results: Sequence[CellResult], columns: Sequence[str], folder: Path, reference: str | None = None
) -> list[Path]:
    """Writes every table for which there are cells, each as NAME.md, .tex, .csv and .json; returns the files.

    A table of curves or of perplexities one of whose files is broken is left out, and one line says why.

    Args:
        columns: BENCHMARK or BENCHMARK/PART. Those of text are of the table of text alone, which also has the other
            text benchmarks that its cells measured.
        reference: the row that the others are compared with; default: the one that tunes all layers.

    Raises:
        StudyError: a column is none, or two cells have the same row, share and seed.
    """
    return [file for page in pages(results, columns, reference) for file in page.write(folder)]


def pages(results: Sequence[CellResult], columns: Sequence[str], reference: str | None = None) -> list[Page]:
    """The tables that `write_tables` writes."""
    asked = columns_of(columns)
    of_text = {True: _text_columns(asked, results), False: visual(columns)}
    boards = {table: Board(results, of_text[table.text], table.experiment, reference) for table in TABLES}
    found = [score_page(table, board) for table, board in boards.items() if board.rows and of_text[table.text]]
    others = (
        lambda: pruning_page(results, columns, reference),
        lambda: reversion_page(results),
        lambda: cost_page(results, reference),
        lambda: importance_page(results),
    )
    return [*found, *filter(None, map(_made, others))]


def _made(make: Callable[[], Page | None]) -> Page | None:
    try:
        return make()
    except (StudyError, ScoreError) as reason:
        print(f"a table is left out: {reason}")
        return None


def _text_columns(asked: Sequence[Column], results: Sequence[CellResult]) -> tuple[Column, ...]:
    """The text benchmarks among the columns, then the other ones that cells of the table of text measured."""
    measured = {name for result in results if "text" in result.cell.experiments for name in result.reports}
    own = [Column(benchmark.name) for benchmark in BENCHMARKS if benchmark.text and benchmark.name in measured]
    return tuple(dict.fromkeys([*(column for column in asked if column.is_text), *own]))
