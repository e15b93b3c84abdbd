"""Figure 1, left: perplexity with a part of the layers set back to the backbone's weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from llava.palette import PLAIN
from visual_region.pictures.figure import COLUMN, PAGE, legend_below, new_figure, style_of
from visual_region.study.figures.drawing import (
    Drawing,
    across_of,
    intervals_text,
    seeds_text,
    whiskers,
    wide_axis,
    with_file,
    wrapped,
    wrapped_all,
)
from visual_region.study.missing import label_of
from visual_region.study.results import REVERSION_FILE, CellResult
from visual_region.study.reversions import Perplexities, part_label, reversions_of
from visual_region.study.statistics import Estimate

_PANELS = 4
"""At most so many next to each other."""
_SPREAD = 0.8
"""Of the height of a line, for the series in it."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """A panel for each corpus, a line for each part of the layers, a series for each row of the study."""
    rows, missing = with_file(results, "reversion", REVERSION_FILE)
    found = reversions_of(rows)
    own = {label_of(row): found.values[row.name, row.share] for row in rows}
    names, variants = list(found.titles), found.variants
    across = across_of(len(names), _PANELS)
    down = -(-len(names) // across)
    height = down * (0.85 + (0.08 + 0.12 * len(rows)) * len(variants)) + 0.2 * (len(rows) > 1)
    figure, axes = new_figure(down, across, max(COLUMN, PAGE * across / _PANELS), height, len(names))
    for place, (axis, (name, title)) in enumerate(zip(axes, found.titles.items(), strict=True)):
        lost = _panel(axis, own, name, variants)
        missing += [f"{title} is not measured for {row}: {', '.join(parts)}" for row, parts in lost.items() if parts]
        kind = "answers to images" if name in found.answers else "text"
        axis.set_title(f"{wrapped(title, 22)}\n({kind})")
        labels = (
            [part_label(layers, rows[0].depth) for layers in variants.values()]
            if place % across == 0
            else [""] * len(variants)
        )
        axis.set_yticks(range(len(variants)), labels)
        axis.set_xlabel("perplexity")
        if place % across == 0:
            axis.set_ylabel("layers set back")
    if len(rows) > 1:
        looks = {name: style_of(i) | {"linestyle": "none"} for i, name in enumerate(wrapped_all(own))}
        legend_below(figure, looks, 3)
    caption = (
        "Perplexity (lower is better) of the trained model as it is, and with parts of its layers set back to the "
        f"backbone's weights, on answers to images and on text. {seeds_text(rows)}; bars: "
        f"{intervals_text(rows, 'pieces of text')}. Grey line: the model as it is (the first row's). A value "
        "with an arrow is far outside the axis."
    )
    return Drawing(figure, caption, missing)


def _panel(
    axis: Any, rows: Mapping[str, Perplexities], corpus: str, variants: Mapping[str, Sequence[int]]
) -> dict[str, list[str]]:
    """Draws one corpus; returns the variants that each row lacks."""
    found: dict[tuple[int, int], Estimate] = {}
    lost: dict[str, list[str]] = {row: [] for row in rows}
    for i, (row, own) in enumerate(rows.items()):
        for j, variant in enumerate(variants):
            if (variant, corpus) in own:
                found[i, j] = own[variant, corpus]
            else:
                lost[row].append(variant)
    ends = {key: (e.value, e.value) if e.low is None else (e.low, e.high) for key, e in found.items()}
    # The backbone can be so far away that the parts could not be told apart: its value is written at the side.
    most = max(map(len, variants.values()))
    near = {key for key in found if len(variants[list(variants)[key[1]]]) < most} or found.keys()
    low, high = min(ends[key][0] for key in near), max(ends[key][1] for key in near)
    near = {key for key in found if low / (high / low) <= found[key].value <= high * (high / low)}
    for (i, j), one in found.items():
        y = j + _SPREAD * ((i + 0.5) / len(rows) - 0.5)
        style = style_of(i) | {"linestyle": "none"}
        if (i, j) in near:
            axis.errorbar(one.value, y, xerr=whiskers(one.value, one.low, one.high), capsize=1.8, **style)
        else:
            _outside(axis, one.value, y, one.value > high, style["color"])
        if i == j == 0:
            axis.axvline(one.value, color=PLAIN, linewidth=0.8, zorder=0)
    wide_axis(axis, min(ends[key][0] for key in near), max(ends[key][1] for key in near), 3)
    axis.set_ylim(len(variants) - 0.4, -0.6)
    axis.grid(axis="x", alpha=0.3)
    return lost


def _outside(axis: Any, value: float, y: float, right: bool, colour: str) -> None:
    """Writes a value that is outside the axis at the side where it lies."""
    text = f"{value:.3g} →" if right else f"← {value:.3g}"
    place = {"ha": "right" if right else "left", "va": "center", "fontsize": 7, "color": colour}
    axis.text(1 if right else 0, y, text, transform=axis.get_yaxis_transform(), **place)
