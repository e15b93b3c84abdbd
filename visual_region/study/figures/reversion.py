"""Figure 1, left: perplexity with a part of the layers set back to the backbone's weights."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.names import listed, short_paths
from llava.palette import PLAIN
from llava.reading import read_json
from visual_region.pictures.figure import COLUMN, PAGE, legend_below, new_figure, style_of
from visual_region.study.figures.drawing import (
    Drawing,
    NothingToDraw,
    across_of,
    label_of,
    seeds_text,
    whiskers,
    wide_axis,
    with_file,
    wrapped,
    wrapped_all,
)
from visual_region.study.results import REVERSION_FILE, CellResult
from visual_region.study.samples import StudyError
from visual_region.study.statistics import Estimate, of_headlines

_PANELS = 4
"""At most so many next to each other."""

Table = Mapping[str, Any]
"""A file of `python -m visual_region perplexity`."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """A panel for each corpus, a line for each part of the layers, a series for each row of the study."""
    rows, missing = with_file(results, "reversion", REVERSION_FILE)
    tables = {label_of(row): [_read(cell.folder / REVERSION_FILE) for cell in row.cells.values()] for row in rows}
    every = [table for own in tables.values() for table in own]
    variants = {name: entry["layers"] for table in every for name, entry in table["rows"].items()}
    corpora = {name: details for table in every for name, details in table["corpora"].items()}
    # Answers to images first: they are rendered by a template.
    names = sorted(corpora, key=lambda name: "template" not in corpora[name])
    if not names:
        raise NothingToDraw(f"no {REVERSION_FILE} holds a perplexity yet")
    short = short_paths(names)
    titles = [str(Path(short[name]).with_suffix("")) for name in names]
    across = across_of(len(names), _PANELS)
    down = -(-len(names) // across)
    height = down * (0.85 + (0.16 + 0.07 * len(rows)) * len(variants)) + 0.2 * (len(rows) > 1)
    figure, axes = new_figure(down, across, max(COLUMN, PAGE * across / _PANELS), height, len(names))
    for place, (axis, name, title) in enumerate(zip(axes, names, titles, strict=True)):
        lost = _panel(axis, tables, name, list(variants))
        missing += [f"{title}: {listed('variant', own)} of {row}" for row, own in lost.items() if own]
        kind = "answers to images" if "template" in corpora[name] else "text"
        axis.set_title(f"{wrapped(title, 22)}\n({kind})")
        labels = (
            [_label(layers, rows[0].depth) for layers in variants.values()]
            if place % across == 0
            else [""] * len(variants)
        )
        axis.set_yticks(range(len(variants)), labels)
        axis.set_xlabel("perplexity")
        if place % across == 0:
            axis.set_ylabel("layers set back")
    if len(rows) > 1:
        looks = {name: style_of(i) | {"linestyle": "none"} for i, name in enumerate(wrapped_all(tables))}
        legend_below(figure, looks, 3)
    caption = (
        "Perplexity (lower is better) of the trained model as it is, and with parts of its layers set back to the "
        f"backbone's weights, on answers to images and on text. {seeds_text(rows)}; bars: 95% intervals over the "
        "pieces of text and the seeds. Grey line: the model as it is (the first row's). Where values are far apart, "
        "the axis is logarithmic."
    )
    return Drawing(figure, caption, missing)


def _read(path: Path) -> Table:
    table = read_json(path, "file of perplexities", StudyError)
    if not isinstance(table, dict) or not {"rows", "corpora"} <= table.keys():
        raise StudyError(f"{path} is not a file of `python -m visual_region perplexity`")
    return table


def _panel(
    axis: Any, tables: Mapping[str, Sequence[Table]], corpus: str, variants: Sequence[str]
) -> dict[str, list[str]]:
    """Draws one corpus; returns the variants that each row lacks."""
    reach: list[float] = []
    lost: dict[str, list[str]] = {row: [] for row in tables}
    for i, (row, own) in enumerate(tables.items()):
        offset = 0.56 * ((i + 0.5) / len(tables) - 0.5)
        for j, variant in enumerate(variants):
            rows = [table["rows"].get(variant, {}).get("perplexity", {}) for table in own]
            cells = [cells[corpus] for cells in rows if corpus in cells]
            if not cells:
                lost[row].append(variant)
                continue
            found = _mean(cells)
            bars = whiskers(found.value, found.low, found.high)
            axis.errorbar(found.value, j + offset, xerr=bars, capsize=1.8, **style_of(i) | {"linestyle": "none"})
            reach += [end for end in (found.value, found.low, found.high) if end is not None]
            if i == j == 0:
                axis.axvline(found.value, color=PLAIN, linewidth=0.8, zorder=0)
    wide_axis(axis, min(reach), max(reach), 3)
    axis.set_ylim(len(variants) - 0.4, -0.6)
    axis.grid(axis="x", alpha=0.3)
    return lost


def _mean(cells: Sequence[Mapping[str, Any]]) -> Estimate:
    """The geometric mean of the seeds' perplexities."""
    logs = [math.log(cell["value"]) for cell in cells]
    own = [None if cell["low"] is None else (math.log(cell["low"]), math.log(cell["high"])) for cell in cells]
    return of_headlines(logs, own, cells[0]["samples"]).mapped(math.exp, None)


def _label(layers: Sequence[int], depth: int | None) -> str:
    """Layers as text: "none", "8-15", "all", or how many."""
    if len(layers) in (0, depth):
        return "all" if layers else "none"
    if list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}–{layers[-1]}"
    return f"{len(layers)} layers"
