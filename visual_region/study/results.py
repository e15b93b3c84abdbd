"""The results in a study's folder: what each finished cell measured. The weights of a cell are not needed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.checkpoint.card import read_run
from llava.eval.scoring.report import Report, read_report
from llava.eval.suite.summary import STATE, SUMMARY
from visual_region.study.cell import CELL_FILE, Cell

CELLS = "cells"
DONE_FILE = "done.json"
"""The finished steps of a cell with their seconds, and whether these are all."""
RESULTS, ATTENTION = "results", "attention"
"""Folders of a cell: `BENCHMARK.json` for each benchmark; `DATASET.json`, a score file, for each data set."""
SCORES_FILE, CURVE_FILE, REVERSION_FILE = "scores.json", "curve.json", "reversion.json"
"""What `python -m visual_region score`, `curve` and `perplexity` wrote for a cell."""


@dataclass(frozen=True)
class CellResult:
    """A cell with what it measured.

    Attributes:
        folder: holds scores.json, curve.json, reversion.json and attention/ as well, where the plan asks for them.
        run: run.json of its training; empty for the backbone.
        reports: benchmark -> its score.
        finished: whether every stage of the cell is finished.
    """

    cell: Cell
    folder: Path
    run: Mapping[str, Any] = field(default_factory=dict)
    reports: Mapping[str, Report] = field(default_factory=dict)
    finished: bool = False


def read_results(out: Path) -> list[CellResult]:
    """Every cell in a study's folder, by name; a cell that is not finished has what it has so far."""
    return [read_cell(file.parent) for file in sorted((out / CELLS).glob(f"*/{CELL_FILE}"))]


def read_cell(folder: Path) -> CellResult:
    # A score that is still being written has a name that begins with a dot.
    files = sorted(file for file in (folder / RESULTS).glob("[!.]*.json") if file.name not in (STATE, SUMMARY))
    reports = {file.stem: read_report(file) for file in files}
    return CellResult(Cell.read(folder), folder, read_run(folder), reports, finished(folder))


def finished(folder: Path) -> bool:
    """Whether every stage of a cell is finished."""
    file = folder / DONE_FILE
    return file.is_file() and bool(json.loads(file.read_text(encoding="utf-8")).get("finished"))
