"""What Figures 2 and 3 share: rows by the number of tuned layers, a line for each share of the data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log2
from typing import Any

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from visual_region.study.figures.drawing import NothingToDraw, by_row, lacking, uneven
from visual_region.study.results import CellResult

EXPERIMENTS = ("depths", "shares")
_DODGE = 0.05
"""Between lines, in factors of 2 of the number of layers, so that whiskers do not lie on each other."""

Lines = Mapping[float, Mapping[int, Sequence[CellResult]]]
"""Share of the data in percent -> number of tuned layers -> the cells of the row, by seed."""


def lines_of(
    results: Sequence[CellResult], measured: Callable[[CellResult], bool], what: str
) -> tuple[Lines, list[str]]:
    """The lines of the cells that have what a figure shows, the largest share first, and what is missing.

    Of several rows with the same number of layers the first is drawn, and the others are named as missing.

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
    missing = lacking([result for result in wanted if result not in having], what) + uneven(having)
    lines: dict[float, dict[int, Sequence[CellResult]]] = {}
    for share in sorted({result.cell.share for result in having}, reverse=True):
        points: dict[int, Sequence[CellResult]] = {}
        for row, cells in by_row(result for result in having if result.cell.share == share).items():
            other = points.setdefault(len(cells[0].cell.layers), cells)
            if other is not cells:
                missing.append(f"{row}, which tunes as many layers as {other[0].cell.row}")
        lines[share] = dict(sorted(points.items()))
    return lines, missing


def whole_of(points: Mapping[int, Sequence[CellResult]]) -> Sequence[CellResult]:
    """The cells of a line that tune all layers; empty without any."""
    return next((cells for size, cells in points.items() if size == cells[0].cell.depth), ())


def groups_of(lines: Lines) -> list[Sequence[CellResult]]:
    """The cells of every point."""
    return [cells for points in lines.values() for cells in points.values()]


def share_label(share: float) -> str:
    return "all data" if share == 100 else f"{share:g}% of the data"


def dodged(sizes: Iterable[int], place: int, places: int) -> list[float]:
    """Where the points of one of several lines are."""
    return [size * 2 ** (_DODGE * (place - (places - 1) / 2)) for size in sizes]


def depth_axis(axis: Any, lines: Lines, inches: float) -> None:
    """Makes the x axis one of the number of tuned layers, logarithmic, with a mark for every number that was tried.

    A number without room next to a larger one has no label; `inches` is the width of the axis.
    """
    sizes = sorted({size for points in lines.values() for size in points}, reverse=True)
    depths = {cells[0].cell.depth for cells in groups_of(lines)}
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
    axis.set_xlabel(f"tuned layers, of {' or '.join(map(str, sorted(depths)))}")
