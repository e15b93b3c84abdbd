"""What Figures 2 and 3 share: rows by the number of tuned layers, a line for each share of the data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log2
from typing import Any

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from visual_region.study.figures.drawing import NothingToDraw
from visual_region.study.missing import label_of, lacking
from visual_region.study.results import CellResult
from visual_region.study.samples import Row, rows_of

EXPERIMENTS = ("depths", "shares")
_DODGE = 0.05
"""Between lines, in doublings of the number of layers, so that whiskers do not lie on each other."""

Lines = Mapping[float, Mapping[int, Row]]
"""Share of the data in percent -> number of tuned layers -> row."""


def lines_of(
    results: Sequence[CellResult], measured: Callable[[CellResult], bool], what: str
) -> tuple[Lines, list[str]]:
    """The rows that have what a figure shows, the largest share first, and what is missing.

    Of several rows with the same number of layers the first is drawn, and a note names the others.

    Args:
        measured: whether a cell has it.
        what: its name in messages.

    Raises:
        NothingToDraw: no cell has it.
    """
    wanted = [r for r in results if set(EXPERIMENTS) & set(r.cell.experiments) and r.cell.selection is not None]
    having = [result for result in wanted if result.cell.layers and measured(result)]
    if not having:
        raise NothingToDraw(f"no cell of the experiments {' and '.join(EXPERIMENTS)} has {what}")
    rows = rows_of(having)
    missing = lacking([result for result in wanted if result not in having], what)
    lines: dict[float, dict[int, Row]] = {}
    for row in sorted(rows, key=lambda row: (-row.share, not row.tunes_all)):
        if row.number is None:
            missing.append(f"{label_of(row)} is not drawn: its seeds tune different numbers of layers")
            continue
        first = lines.setdefault(row.share, {}).setdefault(row.number, row)
        if first is not row:
            missing.append(f"{label_of(row)} is not drawn: it tunes as many layers as {first.name}")
    return {share: dict(sorted(points.items())) for share, points in lines.items()}, missing


def rows_in(lines: Lines) -> list[Row]:
    """The rows of all lines."""
    return [row for points in lines.values() for row in points.values()]


def whole_of(points: Mapping[int, Row]) -> Row | None:
    """The row of a line that tunes all layers."""
    return next((row for row in points.values() if row.tunes_all), None)


def dodged(sizes: Iterable[int], place: int, places: int) -> list[float]:
    """Where the points of one of several lines are."""
    return [size * 2 ** (_DODGE * (place - (places - 1) / 2)) for size in sizes]


def depth_axis(axis: Any, lines: Lines, inches: float) -> None:
    """Makes the x axis one of the number of tuned layers, logarithmic, with a mark for every number that was tried.

    A number without room next to a larger one has no label; `inches` is the width of the axis.
    """
    sizes = sorted({size for points in lines.values() for size in points}, reverse=True)
    depths = sorted({row.depth for row in rows_in(lines)})
    low, high = sizes[-1] / 2**0.35, sizes[0] * 2**0.35
    axis.set_xscale("log", base=2)
    axis.set_xlim(low, high)
    per_doubling = inches / log2(high / low)
    shown: list[int] = []
    for size in sizes:
        if not shown or per_doubling * log2(shown[-1] / size) > 0.08 + 0.06 * len(str(shown[-1])):
            shown.append(size)
    axis.xaxis.set_major_locator(FixedLocator(sizes))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}" if size in shown else ""))
    axis.set_xlabel(f"tuned layers, of {' or '.join(map(str, depths))}")
