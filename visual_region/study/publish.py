"""A copy of a study's results to publish: what its tables and figures are read from, without weights and logs."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from llava.checkpoint.card import RUN_FILE
from llava.files import written_whole
from visual_region.study.cell import CELL_FILE
from visual_region.study.results import (
    ATTENTION,
    CELLS,
    CURVE_FILE,
    DONE_FILE,
    RESULTS,
    REVERSION_FILE,
    SCORES_FILE,
    CellResult,
)

_FILES = (CELL_FILE, DONE_FILE, RUN_FILE, SCORES_FILE, CURVE_FILE, REVERSION_FILE)


def publish(results: Iterable[CellResult], folder: Path) -> int:
    """Copies the result files of cells to `folder`/cells/NAME; returns how many.

    Paths below the working folder become relative, so that the copy does not name folders of this machine.
    """
    here = f"{Path.cwd()}/"
    number = 0
    for result in results:
        for file in _result_files(result):
            text = file.read_text(encoding="utf-8").replace(here, "")
            copy = folder / CELLS / result.folder.name / file.relative_to(result.folder)
            with written_whole(copy, len(text)) as aside:
                aside.write_text(text, encoding="utf-8")
            number += 1
    return number


def _result_files(result: CellResult) -> Iterator[Path]:
    yield from filter(Path.is_file, (result.folder / name for name in _FILES))
    yield from (result.folder / RESULTS / f"{name}.json" for name in result.reports)
    # A score that is still being written has a name that begins with a dot.
    yield from sorted((result.folder / ATTENTION).glob("[!.]*.json"))
