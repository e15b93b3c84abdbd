"""Means over groups that weigh the same, whatever their size, with intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from llava.eval.report import Measure
from llava.eval.statistics import RESAMPLES, draw_counts, percentiles


def by_group(keys: Sequence[str], scores: Sequence[float]) -> dict[str, list[float]]:
    """Scores of each group, the groups in alphabetical order."""
    groups: dict[str, list[float]] = {name: [] for name in sorted(set(keys))}
    for name, score in zip(keys, scores, strict=True):
        groups[name].append(score)
    return groups


def mean_of_group_means(groups: Mapping[str, Sequence[float]], resamples: int = RESAMPLES, seed: int = 0) -> Measure:
    """Each group weighs the same. The interval is the bootstrap's within each group: the groups are not drawn."""
    rng = np.random.default_rng(seed)
    draws = np.zeros(resamples)
    for _, scores in sorted(groups.items()):
        distinct, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
        total = len(scores)
        draws += draw_counts(counts, resamples, rng, lambda drawn, d=distinct, n=total: drawn @ d / n)
    value = sum(sum(scores) / len(scores) for scores in groups.values()) / len(groups)
    return Measure.with_interval(value, percentiles(draws / len(groups)), sum(map(len, groups.values())))
