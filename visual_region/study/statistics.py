"""Means over questions and seeds with 95% intervals. docs/study_statistics.md says why they are computed so.

Scores of one column are an array `(seeds, questions)`: every seed answers the same questions, so that the two are
crossed factors. The variance of the mean of a crossed design with random seeds and questions,

    s2_seed / S + s2_question / Q + s2_residual / (S Q),

is estimated by the squared standard error over the seeds plus that over the questions. The degrees of freedom are those
of Satterthwaite (1946, "An approximate distribution of estimates of variance components"). A bootstrap that resamples
seeds and questions (Owen 2007, "The pigeonhole bootstrap") estimates nearly the same variance, but its percentiles are
too narrow for the 2 or 3 seeds of a study.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llava.eval.scoring.statistics import Interval, student, wilson

SEEDS, QUESTIONS, BOTH = "seeds", "questions", "questions and seeds"
_ROUNDING = 1e-20
"""A variance below this is that of equal scores."""


@dataclass(frozen=True)
class Estimate:
    """A mean, a difference or a ratio with its 95% interval.

    Attributes:
        low, high: None without an interval: one seed and one question, or scores that do not vary.
        sd: standard deviation over the seeds; None with one seed.
        seeds, questions: their numbers.
        covers: what the interval takes as a sample: `BOTH`, `QUESTIONS` (one seed), `SEEDS` (one question), or "".
    """

    value: float
    low: float | None
    high: float | None
    sd: float | None
    seeds: int
    questions: int
    covers: str

    @property
    def has_interval(self) -> bool:
        return self.low is not None

    def mapped(self, change: Callable[[float], float], sd: float | None) -> "Estimate":
        """The same on another scale, by an increasing function; `sd`: there."""
        low, high = (None if end is None else change(end) for end in (self.low, self.high))
        return replace(self, value=change(self.value), low=low, high=high, sd=sd)

    def scaled(self, factor: float) -> "Estimate":
        """In another unit, such as percent."""
        return self.mapped(lambda value: factor * value, None if self.sd is None else factor * self.sd)


def covers_text(seeds: Iterable[int], questions: str = QUESTIONS) -> str:
    """What the intervals of several rows cover, in words.

    Args:
        seeds: the number of seeds of each row.
        questions: what was measured, in the plural.
    """
    several = {number > 1 for number in seeds}
    if several == {True, False}:
        return f"{questions} and seeds, or {questions} only for a row with one seed"
    return f"{questions} and seeds" if True in several else f"{questions} only"


@dataclass(frozen=True)
class Spread:
    """The estimated variance of a mean, with its degrees of freedom and what it covers."""

    variance: float
    df: float
    covers: str


def spread(columns: Sequence[np.ndarray]) -> Spread:
    """The variance of the mean over columns of their means over seeds and questions.

    Questions of different columns are independent; the seeds are shared by all columns. The residual is in both parts:
    the variance is rather too large, and its degrees of freedom do not suffer from a difference of two estimates.

    Args:
        columns: one array `(seeds, questions)` for each column, with the same seeds in the same order.
    """
    seeds, weight = len(columns[0]), 1 / len(columns)
    # Parts of the variance with their degrees of freedom.
    parts: list[tuple[float, int]] = []
    if seeds > 1:
        parts.append((float(_by_seed(columns).var(ddof=1)) / seeds, seeds - 1))
    asked = min(column.shape[1] for column in columns) > 1
    for column in columns if asked else ():
        number = column.shape[1]
        parts.append((weight**2 * float(column.mean(0).var(ddof=1)) / number, number - 1))
    total = sum(part for part, _ in parts)
    below = sum(part**2 / df for part, df in parts)
    covers = {(True, True): BOTH, (True, False): SEEDS, (False, True): QUESTIONS, (False, False): ""}[seeds > 1, asked]
    return Spread(total, total**2 / below if below > 0 else math.inf, covers)


def mean(columns: Sequence[np.ndarray], bounded: bool = False) -> Estimate:
    """The mean over columns of their means over seeds and questions.

    Args:
        columns: as for `spread`.
        bounded: scores lie in [0, 1]. The interval is then Wilson's for the number of samples with this variance, as
            for shares in stratified samples (Franco et al. 2019): a symmetric interval would leave [0, 1], and have no
            width where all answers are right.
    """
    value = float(np.mean([column.mean() for column in columns]))
    found = spread(columns)
    sizes = [column.shape[1] for column in columns]
    low, high = _share_interval(value, found, sizes) if bounded else _interval(value, found)
    return Estimate(value, low, high, _sd(_by_seed(columns)), len(columns[0]), sum(sizes), found.covers)


def difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Estimate:
    """The mean of the differences, paired by seed and question; arguments as for `spread`."""
    return mean([a - b for a, b in zip(ours, theirs, strict=True)])


def ratio(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Estimate | None:
    """The ratio of two means over columns, paired by seed and question; None if the second mean is not above 0.

    The interval is the delta method's: that of the mean of (ours - ratio * theirs) / (mean of theirs).
    """
    base = float(np.mean([column.mean() for column in theirs]))
    if base <= 0:
        return None
    value = float(np.mean([column.mean() for column in ours])) / base
    linear = [(a - value * b) / base for a, b in zip(ours, theirs, strict=True)]
    found = spread(linear)
    by_seed = _by_seed(theirs)
    sd = _sd(_by_seed(ours) / by_seed) if by_seed.min() > 0 else None
    low, high = _interval(value, found)
    return Estimate(value, low, high, sd, len(ours[0]), sum(c.shape[1] for c in ours), found.covers)


def of_headlines(values: Sequence[float], own: Sequence[Interval | None], questions: int) -> Estimate:
    """The mean over seeds of a metric that is no mean of questions; `own`: each value's interval over questions.

    The variance is that over the seeds, plus the mean one of the own intervals. This is rather too wide, as all seeds
    answer the same questions.
    """
    seeds, value = len(values), float(np.mean(values))
    if seeds == 1:
        low, high = own[0] or (None, None)
        return Estimate(value, low, high, None, 1, questions, QUESTIONS if own[0] else "")
    over_seeds = float(np.var(values, ddof=1)) / seeds
    known = [interval for interval in own if interval]
    within = float(np.mean([((high - low) / (2 * student(math.inf))) ** 2 for low, high in known])) if known else 0.0
    df = (over_seeds + within) ** 2 / (over_seeds**2 / (seeds - 1)) if over_seeds > 0 else math.inf
    low, high = _interval(value, Spread(over_seeds + within, df, ""))
    return Estimate(value, low, high, _sd(values), seeds, questions, BOTH if known else SEEDS)


def _by_seed(columns: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean([column.mean(1) for column in columns], axis=0)


def _sd(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _interval(value: float, found: Spread) -> tuple[float, float] | tuple[None, None]:
    if found.variance <= _ROUNDING:
        return None, None
    half = student(found.df) * math.sqrt(found.variance)
    return value - half, value + half


def _share_interval(value: float, found: Spread, sizes: Sequence[int]) -> tuple[float, float] | tuple[None, None]:
    if found.variance > _ROUNDING:
        effective = value * (1 - value) / found.variance
    elif value in (0, 1) and found.covers:
        # As certain as if one seed had answered: the other seeds were asked the same questions.
        effective = len(sizes) ** 2 / sum(1 / size for size in sizes)
    else:
        return None, None
    effective = max(1.0, effective)
    return wilson(value * effective, effective, student(found.df))
