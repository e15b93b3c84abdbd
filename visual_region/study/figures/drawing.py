"""What the figures of a study share: which rows they are of, their axes, and what is said of them."""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from llava.names import count
from visual_region.study.missing import rows_with
from visual_region.study.results import CellResult
from visual_region.study.samples import Row, StudyError
from visual_region.study.statistics import QUESTIONS, covers_text

NAME_WIDTH = 30
"""Letters of a row's name on one line."""


@dataclass(frozen=True)
class Drawing:
    """A figure that is not written yet.

    Attributes:
        caption: what is shown, with the number of seeds and of questions or samples.
        notes: what the figure lacks, and what a reader must know of it.
    """

    figure: Figure
    caption: str
    notes: Sequence[str] = ()


class NothingToDraw(StudyError):
    """No cell has what a figure shows; the message says what is missing."""


Draw = Callable[[Sequence[CellResult], Sequence[str]], Drawing]
"""Draws one figure of a study's cells, whose scores are in these columns; raises `NothingToDraw`."""


def with_file(results: Sequence[CellResult], experiment: str | None, pattern: str) -> tuple[list[Row], list[str]]:
    """`rows_with` of a figure.

    Raises:
        NothingToDraw: no cell has such a file.
    """
    rows, missing = rows_with(results, experiment, pattern)
    if not rows:
        raise NothingToDraw(f"no cell has {pattern}")
    return rows, missing


def seeds_text(rows: Iterable[Row]) -> str:
    """The number of seeds of the rows, such as "3 seeds" or "1 to 3 seeds"."""
    return range_text((len(row.cells) for row in rows), "seed")


def intervals_text(rows: Iterable[Row], questions: str = QUESTIONS) -> str:
    """What the intervals of a figure cover; `questions`: what was measured, in the plural."""
    return f"95% intervals over {covers_text((len(row.cells) for row in rows), questions)}"


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


def wrapped_all(names: Iterable[str], width: int = NAME_WIDTH) -> list[str]:
    """Different names in lines: two lines each, or more if they would become the same."""
    names = list(names)
    short = [wrapped(name, width) for name in names]
    return short if len(set(short)) == len(names) else [wrapped(name, width, len(name)) for name in names]


def across_of(panels: int, most: int) -> int:
    """How many panels are next to each other: at most so many, and about as many on every line."""
    return -(-panels // -(-panels // most))


def wide_axis(axis: Any, low: float, high: float, most: int = 4) -> None:
    """Makes the x axis one of positive values from `low` to `high`, with few ticks; logarithmic if far apart."""
    if high < 4 * low:
        axis.margins(x=0.12)
        axis.xaxis.set_major_locator(MaxNLocator(most))
        return
    axis.set_xscale("log")
    # Room at both ends for the marks.
    low, high = low / (high / low) ** 0.1, high * (high / low) ** 0.1
    axis.set_xlim(low, high)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [tick for i in decades for step in steps if low <= (tick := step * 10.0**i) <= high]
        if len(ticks) <= most:
            break
    axis.xaxis.set_major_locator(FixedLocator(ticks[:: -(-len(ticks) // most)]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def whiskers(value: float, low: float | None, high: float | None) -> list[list[float]] | None:
    """Their lengths as matplotlib takes them; None without an interval.

    A percentile interval need not contain the value, and whiskers have no negative length.
    """
    return None if low is None or high is None else [[max(value - low, 0.0)], [max(high - value, 0.0)]]
