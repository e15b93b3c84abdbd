import numpy as np
import pytest

from llava.eval.scoring.report import by_group, mean_of_group_means
from llava.eval.scoring.statistics import wilson


def test_groups_weigh_the_same():
    groups = by_group(["b", "a", "b", "b"], [1, 0, 1, 0])
    assert groups == {"a": [0], "b": [1, 1, 0]}
    found = mean_of_group_means(groups)
    assert (found.value, found.samples) == (pytest.approx(1 / 3), 4)


def test_one_group_is_nearly_wilsons():
    found = mean_of_group_means({"a": [1] * 70 + [0] * 30})
    assert (found.low, found.high) == pytest.approx(wilson(70, 100), abs=2e-3)
    assert mean_of_group_means({"a": [1] * 7}).low == pytest.approx(wilson(7, 7)[0])
    assert mean_of_group_means({"a": [0], "b": [0]}).high == pytest.approx(wilson(0, 2)[1])


@pytest.mark.parametrize("size", [1, 2, 10])
def test_the_interval_holds_the_truth_as_often_as_it_says(size):
    """A bootstrap within groups of one question holds it never."""
    rng = np.random.default_rng(size)
    held = []
    for _ in range(300):
        shares = rng.beta(1, 3, 27)
        groups = {str(i): list((rng.random(size) < share).astype(float)) for i, share in enumerate(shares)}
        found = mean_of_group_means(groups)
        assert 0 <= found.low < found.value + 1e-12 < found.high <= 1
        held.append(found.low <= shares.mean() <= found.high)
    assert np.mean(held) > 0.92


def test_large_groups_have_the_width_of_theory():
    rng = np.random.default_rng(0)
    groups = {str(i): list((rng.random(400) < 0.3 + 0.05 * i).astype(float)) for i in range(8)}
    found = mean_of_group_means(groups)
    error = np.sqrt(sum(np.var(scores) / 400 for scores in groups.values())) / 8
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.02)


def test_equal_scores_between_0_and_1_leave_no_interval():
    found = mean_of_group_means({"a": [0.4], "b": [0.4, 0.4]})
    assert (found.value, found.low, found.high) == (pytest.approx(0.4), None, None)
