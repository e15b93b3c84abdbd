"""Means over groups that weigh the same, whatever their size, with intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from llava.eval.scoring.report import Measure
from llava.eval.scoring.statistics import wilson

_ROUNDING = 1e-12
"""A variance below this is that of equal scores."""


def mean_of_group_means(groups: Mapping[str, Sequence[float]]) -> Measure:
    """Each group weighs the same; the groups are all there are, only their questions are a sample.

    The interval is Wilson's, of as many samples as have the variance of this mean, as for shares in stratified samples
    (Franco et al. 2019, "Comparative study of confidence intervals for proportions in complex sample surveys"). To the
    squared deviations within a group one is added of the size that they have over all groups: a group of one question,
    or one that is all right, has a variance too. (For groups of one question this is Cochran's collapsed strata, 1977,
    section 5A.12: rather too wide.) A bootstrap within such groups gives an interval of no width.

    Args:
        groups: scores between 0 and 1, at least one in each group. Equal scores other than 0 or 1 have no interval.
    """
    arrays = [np.asarray(scores, dtype=np.float64) for _, scores in sorted(groups.items())]
    number, sizes = len(arrays), np.array([len(scores) for scores in arrays])
    value = float(np.mean([scores.mean() for scores in arrays]))
    within = np.array([((scores - scores.mean()) ** 2).sum() for scores in arrays])
    overall = float(np.mean([((scores - value) ** 2).mean() for scores in arrays]))
    if overall > _ROUNDING:
        effective = value * (1 - value) * number**2 / float(((within + overall) / sizes**2).sum())
    elif value in (0, 1):
        effective = number**2 / float((1 / sizes).sum())
    else:
        return Measure.with_interval(value, None, int(sizes.sum()))
    return Measure.with_interval(value, wilson(value * effective, effective), int(sizes.sum()))
