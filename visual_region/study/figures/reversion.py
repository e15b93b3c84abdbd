"""Figure 1, left: perplexity with a part of the layers set back to the backbone's weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.names import listed, numbered
from llava.palette import PLAIN
from llava.reading import read_json
from visual_region.pictures.figure import PAGE, legend_below, new_figure, style_of
from visual_region.study.figures.drawing import Drawing, bars_of, seeds_text, wide_axis, with_file, wrapped
from visual_region.study.results import REVERSION_FILE, CellResult

_PANELS = 4
"""At most so many next to each other."""

Table = Mapping[str, Any]
"""A file of `python -m visual_region perplexity`."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """A panel for each corpus, a line for each part of the layers, a series for each row of the study."""
    rows, missing = with_file(results, "reversion", REVERSION_FILE)
    tables = {row: [_read(cell.folder / REVERSION_FILE) for cell in cells] for row, cells in rows.items()}
    every = [table for own in tables.values() for table in own]
    variants = list(dict.fromkeys(name for table in every for name in table["rows"]))
    layers = {name: table["rows"][name]["layers"] for table in every for name in table["rows"]}
    corpora = {name: details for table in every for name, details in table["corpora"].items()}
    # Answers to images first; only they are rendered by a template.
    names = sorted(corpora, key=lambda name: "template" not in corpora[name])
    titles = dict(zip(names, numbered([Path(name).stem for name in names]), strict=True))
    across = min(_PANELS, len(names))
    down = -(-len(names) // across)
    height = 0.55 + down * (0.75 + 0.2 * len(variants)) + 0.25 * (len(rows) > 1)
    figure, axes = new_figure(down, across, max(3.3, PAGE * across / _PANELS), height, len(names))
    for place, (axis, name) in enumerate(zip(axes, names, strict=True)):
        found = _panel(axis, tables, name, variants)
        missing += [f"{titles[name]}: {row}, {listed('variant', lost)}" for row, lost in found.items() if lost]
        kind = "answers to images" if "template" in corpora[name] else "text"
        axis.set_title(f"{wrapped(titles[name], 22)}\n({kind})")
        labels = [_label(layers[variant]) for variant in variants] if place % across == 0 else []
        axis.set_yticks(range(len(variants)), labels or [""] * len(variants))
        axis.set_xlabel("perplexity")
    figure.supylabel("layers set back", fontsize=7.5)
    if len(rows) > 1:
        handles = [axes[0].plot([], [], **style_of(i) | {"linestyle": "none"})[0] for i in range(len(rows))]
        legend_below(figure, handles, [wrapped(row) for row in rows], 3)
    whiskers = "95% intervals over the pieces of text; with several seeds the mean, and all seeds' intervals together"
    caption = (
        "Perplexity (lower is better) of the trained model as it is, and with parts of its layers set back to the "
        f"backbone's weights, on answers to images and on text. {seeds_text(rows.values())}; whiskers: {whiskers}. "
        "The grey line is the model as it is (of the first row). Axes with values far apart are logarithmic."
    )
    return Drawing(figure, caption, missing)


def _read(path: Path) -> Table:
    table = read_json(path, "file of perplexities")
    if not isinstance(table, dict) or not {"rows", "corpora"} <= table.keys():
        raise ValueError(f"{path} is not a file of `python -m visual_region perplexity`")
    return table


def _panel(axis: Any, tables: Mapping[str, Sequence[Table]], corpus: str, variants: Sequence[str]) -> dict[str, list]:
    """Draws one corpus; returns the variants that each row lacks."""
    reach, lost = [], {}
    for i, (row, own) in enumerate(tables.items()):
        style = style_of(i) | {"linestyle": "none"}
        offset = 0.56 * ((i + 0.5) / len(tables) - 0.5)
        for j, variant in enumerate(variants):
            rows = [table["rows"].get(variant, {}).get("perplexity", {}) for table in own]
            cells = [cells[corpus] for cells in rows if corpus in cells]
            if not cells:
                lost.setdefault(row, []).append(variant)
                continue
            value = sum(cell["value"] for cell in cells) / len(cells)
            ends = [cell[end] if cell[end] is not None else cell["value"] for cell in cells for end in ("low", "high")]
            axis.errorbar(value, j + offset, xerr=bars_of(value, min(ends), max(ends)), capsize=1.8, **style)
            reach += [value, *ends]
            if i == j == 0:
                axis.axvline(value, color=PLAIN, linewidth=0.8, zorder=0)
    wide_axis(axis, min(reach), max(reach), 3)
    axis.set_ylim(len(variants) - 0.4, -0.6)
    axis.grid(axis="x", alpha=0.3)
    return lost


def _label(layers: Sequence[int]) -> str:
    """Layers as text: "none", "8-15", or how many."""
    if not layers:
        return "none"
    if list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}–{layers[-1]}"
    return f"{len(layers)} layers"
