"""The reversions of a study: perplexities of models with a part of their layers set back to the backbone's weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.names import short_paths
from llava.reading import read_json
from visual_region.study.results import REVERSION_FILE
from visual_region.study.samples import Row, StudyError
from visual_region.study.statistics import Estimate, of_headlines

Perplexities = Mapping[tuple[str, str], Estimate]
"""(variant, corpus) -> perplexity, the geometric mean over the seeds; without what no seed measured."""


@dataclass(frozen=True)
class Reversions:
    """The perplexities of several rows.

    Attributes:
        variants: name -> the layers that are set back.
        titles: corpus -> its short name; corpora with answers to images come first.
        answers: the corpora of answers to images; the other ones are text.
        values: (row, share of the data) -> its perplexities.
    """

    variants: Mapping[str, Sequence[int]]
    titles: Mapping[str, str]
    answers: frozenset[str]
    values: Mapping[tuple[str, float], Perplexities]


def reversions_of(rows: Sequence[Row]) -> Reversions:
    """Reads the files of `python -m visual_region perplexity` in the cells of rows.

    Raises:
        StudyError: a file is another one, or none holds a perplexity.
    """
    tables = {
        (row.name, row.share): [_read(cell.folder / REVERSION_FILE) for cell in row.cells.values()] for row in rows
    }
    every = [table for own in tables.values() for table in own]
    variants = {name: entry["layers"] for table in every for name, entry in table["rows"].items()}
    corpora = {name: details for table in every for name, details in table["corpora"].items()}
    if not corpora:
        raise StudyError(f"no {REVERSION_FILE} holds a perplexity yet")
    # Answers to images are rendered by a template.
    answers = frozenset(name for name, details in corpora.items() if "template" in details)
    names = sorted(corpora, key=lambda name: name not in answers)
    short = short_paths(names)
    values = {
        key: {
            (variant, corpus): _mean(cells)
            for variant in variants
            for corpus in names
            if (cells := [cell for table in own if (cell := _cell(table, variant, corpus))])
        }
        for key, own in tables.items()
    }
    return Reversions(variants, {name: str(Path(short[name]).with_suffix("")) for name in names}, answers, values)


def part_label(layers: Sequence[int], depth: int | None) -> str:
    """Layers as text: "none", "8–15", "all", or how many."""
    if len(layers) in (0, depth):
        return "all" if layers else "none"
    if list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}–{layers[-1]}"
    return f"{len(layers)} layers"


def _read(path: Path) -> Mapping[str, Any]:
    table = read_json(path, "file of perplexities", StudyError)
    if not isinstance(table, dict) or not {"rows", "corpora"} <= table.keys():
        raise StudyError(f"{path} is not a file of `python -m visual_region perplexity`")
    return table


def _cell(table: Mapping[str, Any], variant: str, corpus: str) -> Mapping[str, Any] | None:
    return table["rows"].get(variant, {}).get("perplexity", {}).get(corpus)


def _mean(cells: Sequence[Mapping[str, Any]]) -> Estimate:
    """The geometric mean of the seeds' perplexities."""
    logs = [math.log(cell["value"]) for cell in cells]
    own = [None if cell["low"] is None else (math.log(cell["low"]), math.log(cell["high"])) for cell in cells]
    return of_headlines(logs, own, cells[0]["samples"]).mapped(math.exp, None)
