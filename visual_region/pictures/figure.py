"""What all pictures share."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from llava.files import written_whole
from llava.palette import SERIES
from visual_region.importance import METRICS

COLUMN, PAGE = 3.3, 6.75
"""Widths in inches of a printed page's column and of the page."""
PRINT: Mapping[str, Any] = {
    **{"font.size": 7.5, "axes.titlesize": 8, "axes.labelsize": 7.5, "legend.fontsize": 7.5},
    **{"xtick.labelsize": 7, "ytick.labelsize": 7, "xtick.major.size": 2.5, "ytick.major.size": 2.5},
    **{"axes.linewidth": 0.6, "lines.linewidth": 1.1, "lines.markersize": 4, "grid.linewidth": 0.5},
    **{"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.handlelength": 2.6},
    # A name may hold "$". Texts of an SVG stay texts, and the same figure gives the same file.
    **{"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "visual_region"},
}
"""Settings of figures that are printed at their own size, for `matplotlib.rc_context`; no text is below 7 pt."""
PRINT_DPI = 200
_MARKS, _LINES = "osD^vPX", ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)))


def new_figure(
    rows: int,
    columns: int,
    width: float,
    height: float,
    used: int | None = None,
    **ratios: Sequence[float],
) -> tuple[Figure, Any]:
    """A figure of `width` by `height` inches and its first `used` axes (default: all); the others are not drawn.

    `ratios`: `width_ratios` of the columns and `height_ratios` of the rows.
    """
    look = {"figsize": (width, height), "layout": "constrained", **ratios}
    figure, axes = pyplot.subplots(rows, columns, squeeze=False, **look)
    used = axes.size if used is None else used
    for axis in axes.flat[used:]:
        axis.set_axis_off()
    return figure, axes.flat[:used]


def layer_ticks(axes: Any, depth: int, most: int = 22) -> None:
    """Makes the x axis one of layers, with a tick for every layer if at most `most` fit, else every 2, 4, 5, 10, 20."""
    step = next((s for s in (1, 2, 4, 5, 10) if depth / s <= most), 20)
    axes.set_xticks(range(0, depth, step))
    axes.tick_params(labelsize=7)
    axes.set_xlabel("layer", fontsize=8)


def style_of(place: int) -> dict[str, Any]:
    """Colour, mark and line of the series at a place; each of the three alone tells the first few apart."""
    marks = {"marker": _MARKS[place % len(_MARKS)], "linestyle": _LINES[place % len(_LINES)]}
    return {"color": SERIES[place % len(SERIES)], **marks}


def legend_below(figure: Figure, looks: Mapping[str, Mapping[str, Any]], columns: int) -> Legend:
    """A legend under all panels, in at most so many columns; `looks`: label -> arguments of a line."""
    place = {"loc": "outside lower center", "ncols": min(columns, len(looks))}
    handles = [Line2D([], [], **look) for look in looks.values()]
    legend = figure.legend(handles, [str(i) for i in range(len(looks))], **place)
    # Set afterwards, because matplotlib leaves out labels that begin with "_".
    for text, label in zip(legend.get_texts(), looks, strict=True):
        text.set_text(label)
    return legend


def unit_of(metric: str) -> str:
    """The unit of a metric, or of a detail such as bi-text or angular-last; empty if it is not known."""
    near = [name for name in METRICS if metric == name or metric.startswith(f"{name}-")]
    return METRICS[max(near, key=len)].unit if near else ""


def title_of(metric: str) -> str:
    return METRICS[metric].title if metric in METRICS else metric


def save(figure: Figure, path: str | Path) -> None:
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    pyplot.close(figure)


def save_for_print(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes NAME.png in print resolution and NAME.svg; returns their paths."""
    # Both files have the places that are computed once.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    looks: Iterable[tuple[str, Mapping[str, Any]]] = (
        ("png", {"dpi": PRINT_DPI}),
        ("svg", {"metadata": {"Date": None}}),
    )
    paths = []
    for kind, look in looks:
        paths.append(folder / f"{name}.{kind}")
        with written_whole(paths[-1]) as aside:
            figure.savefig(aside, format=kind, **look)
    pyplot.close(figure)
    return paths


def shortened(names: Sequence[str], most: int = 40) -> list[str]:
    """Names cut at the front to fit a label; whole if the ends are not unique."""
    short = [name if len(name) <= most else f"…{name[1 - most :]}" for name in names]
    return short if len(set(short)) == len(set(names)) else list(names)
