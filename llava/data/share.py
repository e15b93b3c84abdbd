"""A share of a data set, drawn with a seed: `--data_share 25%`."""

import math
import re
from fractions import Fraction

import numpy as np

from llava.names import did_you_mean

WHOLE = "100%"
_SHARE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(%?)")


def parse_share(text: str) -> Fraction:
    """Reads a share such as '25%'; raises `ValueError` for anything else."""
    match = _SHARE.fullmatch(str(text).strip())
    value = Fraction(match[1]) if match else Fraction(0)
    if not match or not match[2] or not 0 < value <= 100:
        hint = f"{float(100 * value):g}%" if match and 0 < value <= 1 else f"{float(value):g}%"
        near = [hint] if match and not match[2] and 0 < value <= 100 else []
        raise ValueError(f"--data_share {text!r} must be above 0% and at most 100%, such as 25%{did_you_mean(*near)}")
    return value / 100


def draw_share(indices: np.ndarray, share: Fraction, seed: int) -> np.ndarray:
    """This share of the indices in ascending order, rounded half up, at least one.

    With one seed, a smaller share is part of a larger one. `RandomState`, because its numbers never change between
    releases of numpy.
    """
    count = max(1, math.floor(len(indices) * share + Fraction(1, 2)))
    return np.sort(indices[np.random.RandomState(seed).permutation(len(indices))[:count]])
