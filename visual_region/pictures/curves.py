"""Scores against layers removed: a panel per benchmark, a line per checkpoint and way (the paper's Figure 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogFormatter

from llava.eval.benchmarks import BY_NAME
from llava.eval.scoring.report import Measure
from llava.names import numbered
from llava.palette import MARKED, OTHER, SERIES
from visual_region.curve_file import ANYWHERE, LIST, OUTSIDE, WAYS, CheckpointCurve
from visual_region.pictures.figure import new_figure, save, title_of

TITLES = {OUTSIDE: "outside the tuned region", ANYWHERE: "anywhere"}
STYLES: dict[str, dict[str, Any]] = {
    OUTSIDE: {"marker": "o", "markersize": 5, "linewidth": 3},
    ANYWHERE: {"marker": "o", "markersize": 9, "markerfacecolor": "none", "linewidth": 1.5, "linestyle": (0, (3, 4))},
}
"""Both lines are often the same: the second is a thin, dashed one over a thick one, with rings around its dots."""
_HIGH = 80
"""Percent above which a panel shows the whole range."""
_MARKERS = "osD^vPX*<>"
_COLUMNS = 3
"""Panels in a row, at most."""
_APART = 0.07
"""Removed layers between the marks of two lines, so that their intervals do not cover each other."""


@dataclass(frozen=True)
class Line:
    """Measures by number of removed layers, with the arguments of the plot."""

    label: str
    points: Sequence[tuple[int, Measure]]
    style: Mapping[str, Any]


def pruning_curve(axes: Any, lines: Sequence[Line], metric: str, unit: str = "share") -> None:
    """Draws lines with their 95% intervals: bands for one or two of them, bars for more.

    Args:
        unit: `Report.unit`; shares are drawn in percent, others on a logarithmic scale.
    """
    scale, bands = (100 if unit == "share" else 1), len(lines) <= 2
    top = 0.0
    for i, line in enumerate(lines):
        places = [number + (0 if bands else _APART * (i - (len(lines) - 1) / 2)) for number, _ in line.points]
        values = [scale * measure.value for _, measure in line.points]
        axes.plot(places, values, label=line.label, **line.style)
        bounds = [[scale * m.value if end is None else scale * end for end in (m.low, m.high)] for _, m in line.points]
        low, high = zip(*bounds, strict=True)
        top = max(top, *high, *values)
        if bands:
            axes.fill_between(places, low, high, color=line.style["color"], alpha=0.15, linewidth=0)
        else:
            axes.vlines(places, low, high, color=line.style["color"], linewidth=1.2)
    axes.set_xticks(range(max(number for line in lines for number, _ in line.points) + 1))
    axes.set_xlabel("layers removed")
    if unit != "share":
        axes.set_yscale("log")
        for place in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            place(LogFormatter(minor_thresholds=(2, 1)))
        axes.set_ylabel(metric)
        return
    # So that marks at both ends are whole.
    axes.set_ylim((-4, 104) if top > _HIGH else (-0.04 * top, 1.08 * top or 1))
    axes.set_ylabel(f"{metric.replace('_', ' ')}, %")


def lines_of(curves: Sequence[tuple[str, CheckpointCurve]], benchmark: str) -> list[Line]:
    """The lines of named checkpoints: a colour for each, dashed if nothing is protected.

    A checkpoint without a region to protect has one line, as both ways are the same. A single checkpoint has a colour
    for each way.
    """
    lines = []
    for i, (name, curve) in enumerate(curves):
        by_way = {
            way: [(p.removed, p.reports[benchmark].headline) for p in curve.line(way) if benchmark in p.reports]
            for way in WAYS
        }
        if not curve.protects:
            del by_way[ANYWHERE]
        by_way = {way: points for way, points in by_way.items() if points}
        for way, points in by_way.items():
            colour = SERIES[i % len(SERIES)] if len(curves) > 1 else {OUTSIDE: MARKED, ANYWHERE: OTHER}[way]
            style = {**STYLES[way], "color": colour}
            titles = [name] * (len(curves) > 1 or len(by_way) < 2) + [TITLES[way]] * (len(by_way) > 1)
            if len(curves) > 1:
                style |= {"marker": _MARKERS[i % len(_MARKERS)], "linewidth": 1.8, "markersize": 6}
            lines.append(Line(", ".join(titles), points, style))
    return lines


def axis_label(curves: Sequence[CheckpointCurve]) -> str:
    """What is counted, and which layers are removed first; in earlier versions those of least angular distance."""
    orders = {curve.order.by for curve in curves if curve.order} or {"angular"}
    named = ["in a given order" if by == LIST else f"lowest {title_of(by)} first" for by in sorted(orders)]
    return f"layers removed, {' or '.join(named)}"


def draw_curves(curves: Sequence[tuple[str, CheckpointCurve]], path: str | Path) -> None:
    """Writes a picture with one panel per benchmark, and the legend of all below; equal names are numbered."""
    names = numbered([name for name, _ in curves])
    curves = list(zip(names, (curve for _, curve in curves), strict=True))
    reports = {name: report for _, curve in curves for point in curve.points for name, report in point.reports.items()}
    columns = min(len(reports), _COLUMNS)
    rows = -(-len(reports) // columns)
    figure, axes = new_figure(rows, columns, 1.6 + 4.0 * columns, 1.2 + 3.2 * rows, len(reports))
    labels: dict[str, Any] = {}
    for panel, (benchmark, report) in zip(axes, reports.items(), strict=True):
        pruning_curve(panel, lines_of(curves, benchmark), report.metric, report.unit)
        panel.set_title(BY_NAME[benchmark].column if benchmark in BY_NAME else benchmark, fontsize=10)
        labels |= {label: handle for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    title = f"{axis_label([curve for _, curve in curves])}; 95% intervals"
    style = {"loc": "outside lower center", "frameon": False, "fontsize": 9, "title_fontsize": 9}
    figure.legend(labels.values(), labels, ncols=2, title=title, **style)
    save(figure, path)
