import random

import numpy as np
import pytest

from llava.eval.scoring.statistics import bootstrap_mean, wilson


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe (1998), table I, method 3: Wilson's interval without continuity correction.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(right, total, low, high):
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("total", [1, 3, 5000])
def test_wilson_holds_its_share_at_the_ends(total):
    assert wilson(total, total)[1] == 1
    assert wilson(0, total)[0] == 0


def test_bootstrap_of_a_mean_is_as_wide_as_theory_says():
    values = np.random.default_rng(1).normal(3, 2, 4000)
    low, high = bootstrap_mean(values)
    half = 1.96 * values.std() / 4000**0.5
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 8)


def test_bootstrap_of_shares_is_near_wilson():
    values = [1] * 300 + [0] * 700
    assert bootstrap_mean(values) == pytest.approx(wilson(300, 1000), abs=0.003)


def test_order_does_not_matter_and_runs_repeat():
    values = [random.Random(0).random() for _ in range(500)]
    shuffled = sorted(values)
    assert bootstrap_mean(values) == bootstrap_mean(shuffled) == bootstrap_mean(values)


def test_equal_values_and_none():
    assert bootstrap_mean([0.5] * 10) == (0.5, 0.5)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([])
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)
