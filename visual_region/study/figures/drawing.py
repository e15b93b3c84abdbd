"""What the figures of a study share: which cells they are of, their axes, and what is said of them."""

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from llava.names import count, listed
from visual_region.study.results import CellResult

NAME_WIDTH = 30
"""Letters of a row's name on one line."""


@dataclass(frozen=True)
class Drawing:
    """A figure that is not written yet.

    Attributes:
        caption: what is shown, with the number of seeds and of questions or samples.
        missing: what the figure lacks; empty if it is complete.
    """

    figure: Figure
    caption: str
    missing: Sequence[str] = ()


class NothingToDraw(ValueError):
    """No cell has what a figure shows; the message says what is missing."""


def by_row(results: Iterable[CellResult]) -> dict[str, list[CellResult]]:
    """The cells of each row, by seed; rows that tune all layers come first, the others stay in order."""
    rows: dict[str, list[CellResult]] = {}
    for result in sorted(results, key=lambda result: (not tunes_all(result), result.cell.seed)):
        rows.setdefault(result.cell.row, []).append(result)
    order = list(dict.fromkeys(result.cell.row for result in results))
    return dict(sorted(rows.items(), key=lambda item: (not tunes_all(item[1][0]), order.index(item[0]))))


def tunes_all(result: CellResult) -> bool:
    """Whether every layer was tuned."""
    cell = result.cell
    return cell.selection == "all" or (cell.layers is not None and len(cell.layers) == cell.depth)


def with_file(
    results: Sequence[CellResult], experiment: str | None, pattern: str
) -> tuple[dict[str, list[CellResult]], list[str]]:
    """The cells that have a file, by row, and what those of the experiment lack.

    Raises:
        NothingToDraw: no cell has one.
    """
    having = [result for result in results if any(result.folder.glob(pattern))]
    wanted = [result for result in results if experiment in result.cell.experiments and result not in having]
    if not having:
        asked = f"; {count(len(wanted), 'cell')} of the plan should" if wanted else ""
        raise NothingToDraw(f"no cell has {pattern}{asked}")
    return by_row(having), lacking(wanted, pattern) + uneven(having)


def lacking(cells: Sequence[CellResult], what: str) -> list[str]:
    """Says which cells have no `what`; nothing for no cells."""
    return [f"{what} of {listed('cell', [result.cell.name for result in cells])}"] if cells else []


def uneven(results: Sequence[CellResult]) -> list[str]:
    """Says which rows lack seeds that other rows of the same share of the data have."""
    found = []
    for share in sorted({result.cell.share for result in results}, reverse=True):
        rows = by_row(result for result in results if result.cell.share == share)
        seeds = {name: {result.cell.seed for result in cells} for name, cells in rows.items()}
        every = set().union(*seeds.values())
        at = f" at {share:g}% of the data" if share != 100 else ""
        found += [f"{listed('seed', sorted(every - own))} of {name}{at}" for name, own in seeds.items() if own != every]
    return found


def seeds_text(groups: Iterable[Sequence[CellResult]]) -> str:
    """The number of seeds of the points, such as "3 seeds" or "1 to 3 seeds"."""
    numbers = sorted({len({result.cell.seed for result in cells}) for cells in groups})
    return count(numbers[0], "seed") if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]} seeds"


def range_text(numbers: Iterable[int], one: str) -> str:
    """The smallest and the largest of several numbers, with their noun; "" without any."""
    every = sorted(set(numbers))
    if not every:
        return ""
    return count(every[0], one) if len(every) == 1 else f"{every[0]} to {every[-1]} {one}s"


def wrapped(name: str, width: int = NAME_WIDTH, lines: int = 2) -> str:
    """A name in lines; one that needs more than `lines` lines loses its middle."""
    if len(name) > width * lines:
        half = (width * lines - 3) // 2
        name = f"{name[:half]} … {name[-half:]}"
    return "\n".join(textwrap.wrap(name, width)) or name


def wide_axis(axis: Any, low: float, high: float, most: int = 4) -> None:
    """Makes positive values from `low` to `high` an x axis with few ticks, which is logarithmic if they are far apart."""
    if high < 4 * low:
        axis.margins(x=0.12)
        axis.xaxis.set_major_locator(MaxNLocator(most))
        return
    axis.set_xscale("log")
    # A fifth more at both ends for the marks.
    room = (high / low) ** 0.12
    axis.set_xlim(low / room, high * room)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**i for i in decades for step in steps]
        ticks = [tick for tick in ticks if low / room <= tick <= high * room]
        if len(ticks) <= most:
            break
    axis.xaxis.set_major_locator(FixedLocator(ticks[:: -(-len(ticks) // most)]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def bars_of(value: float, low: float | None, high: float | None) -> list[list[float]] | None:
    """The lengths of whiskers as matplotlib takes them; None without an interval.

    A percentile interval need not contain the value, and whiskers have no negative length.
    """
    if low is None or high is None:
        return None
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


Draw = Callable[[Sequence[CellResult], Sequence[str]], Drawing]
"""Draws one figure of a study's cells, whose scores are in these columns; raises `NothingToDraw`."""
Entries = Mapping[str, Any]


def first_name(path: str) -> str:
    """The name of a data file without its suffix."""
    return Path(path).stem
