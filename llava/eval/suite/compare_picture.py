"""A comparison drawn: what each checkpoint keeps of the reference, and its difference on every benchmark."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmarks import BENCHMARKS
from llava.files import written_whole
from llava.palette import PLAIN, SERIES

_MARKS = "osD^v"
_NAME_WIDTH, _NAME_LINES = 72, 3
"""Letters per line of the legend, and lines per name."""

Entry = Mapping[str, Any]


def draw(comparison: Mapping[str, Any], path: Path) -> None:
    """Writes the picture as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = picture(comparison)
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    plt.close(figure)


def picture(comparison: Mapping[str, Any]) -> Any:
    """A matplotlib figure with all checkpoints' names in a legend below the panels.

    Panels: the differences in points on every benchmark, with intervals; percent kept of the reference's average; the
    ratio of perplexities, a row for each checkpoint and corpus. Names are in the legend only, as they may be longer
    than any axis.
    """
    import matplotlib.pyplot as plt

    differences: Mapping[str, Mapping[str, Entry]] = comparison["differences"]
    names = list(differences)
    measured = {column: entry for found in differences.values() for column, entry in found.items()}
    # A difference of perplexities is not in points.
    columns = [b.column for b in BENCHMARKS if b.column in measured and "ratio" not in measured[b.column]]
    kept = {name: entry for name, entry in comparison["kept"].items() if entry is not None}
    texts = [
        (b.column, name)
        for b in BENCHMARKS
        for name, found in differences.items()
        if "ratio" in found.get(b.column, {})
    ]
    ratios = [(name, differences[name][column]["ratio"]) for column, name in texts]
    corpora = [column for column, _ in texts]
    panels: list[tuple[float, Callable[[Any], None]]] = []
    styles = {
        name: {"color": SERIES[i % len(SERIES)], "marker": _MARKS[i // len(SERIES) % 5]} for i, name in enumerate(names)
    }
    if columns:
        panels.append((6.0, lambda axes: _draw_differences(axes, differences, columns, styles)))
    if kept:
        over = "/".join(map(str, sorted({len(entry["benchmarks"]) for entry in kept.values()})))
        what = f"% of the reference's average kept,\nvisual benchmarks: {over} (95%, paired)"
        panels.append((4.0, lambda axes: _draw_rows(axes, [*kept.items()], styles, 100, what, "{:.1f}%")))
    if ratios:
        times = "perplexity as a multiple of the\nreference's (95%, paired), lower is better"
        panels.append((4.0, lambda axes: _draw_rows(axes, ratios, styles, 1, times, "x{:.3f}", corpora)))
    if not panels:
        raise ValueError("there is nothing to draw")

    labels = [_wrapped(comparison["reference"] + " (reference)"), *map(_wrapped, names)]
    rows = max(len(columns) * max(0.36, 0.17 * len(names)), 0.5 * max(len(names), len(ratios)), 1.2)
    widths = [width for width, _ in panels]
    # A panel alone is as wide as the legend's longest line.
    width = max(sum(widths), 7.5) + 0.4
    longest = max(len(line) for label in labels for line in label.split("\n"))
    legend_columns = min(len(labels), max(1, int(width / (0.085 * longest + 0.7))))
    heights = [label.count("\n") + 1 for label in labels]
    legend_lines = sum(heights) if legend_columns == 1 else -(-len(labels) // legend_columns) * max(heights)
    size = (width, rows + 0.9 + 0.22 * legend_lines)
    figure, grid = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False, width_ratios=widths)
    for axes, (_, fill) in zip(grid[0], panels, strict=True):
        fill(axes)
    handles = [plt.Line2D([], [], color=PLAIN, linewidth=1)]
    handles += [plt.Line2D([], [], linestyle="none", **styles[name]) for name in names]
    look = {"loc": "outside lower center", "ncols": legend_columns, "fontsize": 8, "frameon": False}
    legend = figure.legend(handles, list(map(str, range(len(handles)))), **look)
    # Set afterwards: matplotlib reads "$" as a formula and leaves out labels that begin with "_".
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
    return figure


def _draw_differences(
    axes: Any, differences: Mapping[str, Mapping[str, Entry]], columns: list[str], styles: Mapping[str, dict[str, str]]
) -> None:
    for i, (name, found) in enumerate(differences.items()):
        offset = 0.7 * ((i + 0.5) / len(differences) - 0.5)
        for j, column in enumerate(columns):
            if column in found:
                _point(axes, found[column], j + offset, styles[name])
    axes.set_yticks(range(len(columns)), columns)
    axes.set_ylim(len(columns) - 0.5, -0.5)
    _set_axis(axes, 0, "difference to the reference,\npoints (95%, paired)", 0.08)


def _draw_rows(
    axes: Any,
    entries: Sequence[tuple[str, Entry]],
    styles: Mapping[str, dict[str, str]],
    even: float,
    label: str,
    text: str,
    ticks: Sequence[str] = (),
) -> None:
    """A row for each checkpoint, its value above its point; with `ticks`, several rows, which these name."""
    for i, (name, entry) in enumerate(entries):
        _point(axes, entry, i, styles[name])
        place = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        place["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.annotate(text.format(entry["value"]), (entry["value"], i), **place)
    axes.set_yticks(range(len(ticks)), ticks)
    axes.set_ylim(len(entries) - 0.4, -0.8)
    # Room for the texts, which are wider than the points.
    _set_axis(axes, even, label, 0.2)


def _set_axis(axes: Any, even: float, label: str, margin: float) -> None:
    """The grey line is where a checkpoint equals the reference."""
    axes.axvline(even, color=PLAIN, linewidth=1)
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    axes.margins(x=margin)


def _wrapped(name: str) -> str:
    """A name in lines of the legend's width; a name of too many lines loses its middle."""
    room = _NAME_WIDTH * _NAME_LINES
    if len(name) > room:
        half = (room - 5) // 2
        name = f"{name[:half]} ... {name[-half:]}"
    lines = textwrap.wrap(name, _NAME_WIDTH, break_on_hyphens=False)
    return "\n".join(lines) or repr(name)


def _point(axes: Any, entry: Entry, y: float, style: Mapping[str, str]) -> None:
    """A value with its interval; without one an open mark."""
    style = {"linestyle": "none", "clip_on": False, "zorder": 4, **style}
    if "low" in entry:
        reach = [[max(0.0, entry["value"] - entry["low"])], [max(0.0, entry["high"] - entry["value"])]]
        axes.errorbar(entry["value"], y, xerr=reach, capsize=3, **style)
    else:
        axes.plot(entry["value"], y, markerfacecolor="none", **style)
