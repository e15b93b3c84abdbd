"""95% intervals of scores: Wilson's for shares, the bootstrap for means.

Both treat the questions as drawn at random from a larger set. Differences between two checkpoints are paired: take
`bootstrap_mean` of the differences question by question, not the difference of two intervals.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

Interval = tuple[float, float]
RESAMPLES = 2000
Z = 1.959963984540054
_CHUNK = 1 << 22


def wilson(right: float, total: float, z: float = Z) -> Interval:
    """95% interval of a share (Wilson 1927); `total` is at least 1, and a fraction if it is an effective number."""
    if total < 1:
        raise ValueError("an interval needs at least one sample")
    p, spread = right / total, z * z / total
    centre = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / total + spread / (4 * total)) / (1 + spread)
    # The ends of a share of 0 or 1 are exact; rounding may put them a hair on the wrong side.
    return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))


def bootstrap_mean(values: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """95% percentile-bootstrap interval of a mean; the order of the values does not matter."""
    if not len(values):
        raise ValueError("an interval needs at least one sample")
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    total = int(counts.sum())
    means = draw_counts(counts, resamples, np.random.default_rng(seed), lambda drawn: drawn @ distinct / total)
    return percentiles(means)


def draw_counts(
    counts: np.ndarray, resamples: int, rng: np.random.Generator, summary: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Summaries `(resamples, ...)` of bootstrap resamples of a sample that is given by its distinct values' counts.

    Args:
        counts: integers `(k,)`.
        summary: drawn counts `(n, k)` -> `(n, ...)`.
    """
    total = int(counts.sum())
    step = max(1, _CHUNK // len(counts))
    sizes = (min(step, resamples - start) for start in range(0, resamples, step))
    return np.concatenate([summary(rng.multinomial(total, counts / total, size=size)) for size in sizes])


def percentiles(draws: np.ndarray) -> Interval:
    """The middle 95% of draws `(n,)`."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def student(df: float) -> float:
    """The 97.5% point of Student's t for `df` degrees of freedom, a fraction too; good to five digits, from 1 df on.

    By the substitution t = sqrt(df) tan(angle), whose density is cos(angle)^(df - 1). More than a million are a normal
    distribution.
    """
    df = min(df, 1e6)
    # The tail beyond 12 is left out where it has no mass. Steps get small towards the end, where few df are steep.
    angles = min(math.pi / 2, 12 / math.sqrt(df)) * (1 - np.linspace(1, 0, 5001) ** 2)
    density = np.cos(angles) ** (df - 1)
    mass = np.concatenate([[0.0], np.cumsum(np.diff(angles) * (density[1:] + density[:-1]))])
    return math.sqrt(df) * math.tan(np.interp(0.95, mass / mass[-1], angles))
