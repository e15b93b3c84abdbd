"""A copy of a study's results to publish: what tables, figures and a continued study read, without weights and logs."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llava.checkpoint.card import RUN_FILE
from llava.eval.benchmarks import BY_NAME
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
from visual_region.study.state import SETTINGS_FILE, seconds_of
from visual_region.study.steps import CURVE, EVALUATE, SCORE, TEXT

_ABOUT = (CELL_FILE, DONE_FILE, SETTINGS_FILE, RUN_FILE)
"""What describes a cell and its finished training."""
_MEASURED = {SCORE: SCORES_FILE, "reversion": REVERSION_FILE, CURVE: CURVE_FILE}
"""Step -> the file that it writes."""


def publish(results: Iterable[CellResult], folder: Path) -> int:
    """Copies the result files of finished steps to `folder`/cells/NAME, in place of earlier ones; returns how many.

    A step that is not finished may have written a part of its files. A study that is continued from the copy trains the
    cell again, and must not take them for measurements of the new weights.

    Paths below the working folder become relative, so that the copy does not name folders of this machine.
    """
    number = 0
    for result in results:
        finished, target, written = seconds_of(result.folder), folder / CELLS / result.folder.name, set()
        for file in _result_files(result, finished):
            text = file.read_text(encoding="utf-8")
            if file == result.folder / SETTINGS_FILE:
                settings = {step: values for step, values in json.loads(text).items() if step in finished}
                text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
            text = without_working_folder(text)
            copy = target / file.relative_to(result.folder)
            with written_whole(copy, len(text)) as aside:
                aside.write_text(text, encoding="utf-8")
            written.add(copy)
        # An earlier copy may hold measurements of a training that was made again since.
        for older in {*_measurements(target)} - written:
            older.unlink()
        number += len(written)
    return number


def without_working_folder(value: Any) -> Any:
    """A text, or the texts in lists and mappings, with relative paths in place of those below the working folder."""
    if isinstance(value, Mapping):
        return {name: without_working_folder(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_working_folder(inner) for inner in value]
    return value.replace(f"{Path.cwd()}/", "") if isinstance(value, str) else value


def _result_files(result: CellResult, finished: Collection[str]) -> Iterator[Path]:
    """The files that describe a cell, and those of its finished steps."""
    names = [*_ABOUT, *(name for step, name in _MEASURED.items() if step in finished)]
    yield from filter(Path.is_file, (result.folder / name for name in names))
    yield from (result.folder / RESULTS / f"{name}.json" for name in result.reports if _step_of(name) in finished)
    if "attention" in finished:
        # A score that is still being written has a name that begins with a dot.
        yield from sorted((result.folder / ATTENTION).glob("[!.]*.json"))


def _measurements(cell: Path) -> Iterator[Path]:
    """The files that steps after the training wrote to a cell's folder."""
    yield from filter(Path.is_file, (cell / name for name in _MEASURED.values()))
    yield from (file for name in (RESULTS, ATTENTION) for file in (cell / name).glob("*.json"))


def _step_of(benchmark: str) -> str:
    """The step of a cell that measures a benchmark."""
    return TEXT if benchmark in BY_NAME and BY_NAME[benchmark].text else EVALUATE
