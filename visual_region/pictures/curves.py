"""Accuracy against layers removed, with the region protected and without (the paper's Figure 4)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.names import numbered
from llava.palette import MARKED, OTHER, PLAIN
from visual_region.pictures.figure import new_figure, save

WAYS = (
    (True, "outside the tuned region", {"color": MARKED, "marker": "o", "markersize": 5, "linewidth": 3}),
    (
        *(False, "anywhere"),
        {"color": OTHER, "marker": "o", "markersize": 9, "markerfacecolor": "none", "linestyle": (0, (3, 4))},
    ),
)
"""`protected` of an entry, and its line. Both lines are often the same: the second is a thin, dashed one over a thick
one, with rings around its dots.
"""


def pruning_curve(axes: Any, entries: Sequence[Mapping[str, Any]], floor: float | None = None) -> None:
    """Draws both lines, and a dotted one for `floor`, the accuracy without images.

    Args:
        entries: of `visual_region.commands.curve`: `removed` (0 for the whole model), `protected`, `accuracy`, and
            `scores.intervals.all` if known.
    """
    whole = [entry for entry in entries if entry["removed"] == 0][:1]
    for protected, name, style in WAYS:
        points = [entry for entry in entries if entry["protected"] == protected and entry["removed"]]
        if points:
            _line(axes, whole + sorted(points, key=lambda entry: entry["removed"]), name, style)
    if floor is not None:
        axes.axhline(100 * floor, color=PLAIN, linestyle=":", label="blind")
    counts = sorted({entry["removed"] for entry in entries})
    axes.set_xticks(range(counts[0], counts[-1] + 1))
    # So that marks at 0 and 100 are whole.
    axes.set_ylim(-4, 104)
    axes.set_yticks(range(0, 101, 20))
    axes.set_xlabel("layers removed, least angular distance first")
    axes.set_ylabel("accuracy, %")
    axes.legend(fontsize=8)


def _line(axes: Any, points: Sequence[Mapping[str, Any]], name: str, style: Mapping[str, Any]) -> None:
    """One line, with the 95% interval of each accuracy if it is known."""
    removed, accuracy = [p["removed"] for p in points], [100 * p["accuracy"] for p in points]
    axes.plot(removed, accuracy, label=name, **style)
    intervals = [(p.get("scores") or {}).get("intervals", {}).get("all") for p in points]
    if all(intervals):
        low, high = ([100 * interval[end] for interval in intervals] for end in (0, 1))
        axes.fill_between(removed, low, high, color=style["color"], alpha=0.15, linewidth=0)


def draw_curves(curves: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], path: str | Path) -> None:
    """Writes a picture with one panel per curve, `(title, entries)`; equal titles are numbered."""
    titles = numbered([title for title, _ in curves])
    figure, axes = new_figure(1, len(curves), 5.2 * len(curves), 3.8)
    for panel, title, (_, entries) in zip(axes, titles, curves, strict=True):
        pruning_curve(panel, entries)
        panel.set_title(title, fontsize=9)
    save(figure, path)
