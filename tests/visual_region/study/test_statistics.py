"""Intervals against plain loops, the usual formulas, scipy, and the truth of simulated studies."""

import math

import numpy as np
import pytest

from llava.eval.scoring.statistics import student, wilson
from visual_region.study.statistics import BOTH, QUESTIONS, SEEDS, difference, mean, of_headlines, ratio, spread


@pytest.mark.parametrize(
    ("df", "point"),
    # Any table of Student's t.
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423), (120, 1.9799), (1e9, 1.95996)],
)
def test_student(df, point):
    assert student(df) == pytest.approx(point, abs=1e-4)


def test_student_is_scipys():
    stats = pytest.importorskip("scipy.stats", reason="pip install scipy")
    for df in (1, 1.3, 2.5, 7.7, 57.9, 58.1, 400, math.inf):
        assert student(df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-5)


def standard_error_squared(numbers):
    """Of the mean of a few numbers, by plain loops."""
    mean = sum(numbers) / len(numbers)
    return sum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1) / len(numbers)


def parts(scores):
    """The squared standard errors of the mean of one column: over seeds, and over questions."""
    scores = np.asarray(scores).tolist()
    of_seed = [sum(row) / len(row) for row in scores]
    of_question = [sum(row[q] for row in scores) / len(scores) for q in range(len(scores[0]))]
    return standard_error_squared(of_seed), standard_error_squared(of_question)


@pytest.mark.parametrize("shape", [(3, 50), (2, 7), (5, 400)])
def test_variance_of_one_column(shape):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(shape[0], 1)) + rng.normal(size=shape[1]) + rng.normal(size=shape)
    found = spread([scores])
    over_seeds, over_questions = parts(scores)
    assert found.variance == pytest.approx(over_seeds + over_questions)
    df = (over_seeds + over_questions) ** 2 / (over_seeds**2 / (shape[0] - 1) + over_questions**2 / (shape[1] - 1))
    assert found.df == pytest.approx(df)
    assert found.covers == BOTH


def test_the_expected_variance_counts_the_residual_twice():
    """Over many made tables with known components."""
    rng = np.random.default_rng(1)
    seed, question, residual, shape = 0.2, 1.0, 0.7, (3, 40)
    found = [
        spread([seed * rng.normal(size=(3, 1)) + question * rng.normal(size=40) + residual * rng.normal(size=shape)])
        for _ in range(2000)
    ]
    expected = seed**2 / 3 + question**2 / 40 + 2 * residual**2 / 120
    assert np.mean([one.variance for one in found]) == pytest.approx(expected, rel=0.03)


def test_equal_questions_leave_a_t_interval_over_seeds():
    """The usual formula for the mean of a few independent numbers."""
    by_seed = np.array([0.3, 0.5, 0.6])
    found = mean([np.repeat(by_seed[:, None], 20, axis=1)])
    half = 4.30265 * by_seed.std(ddof=1) / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((by_seed.mean() - half, by_seed.mean() + half), rel=1e-5)
    assert found.sd == pytest.approx(by_seed.std(ddof=1))


def test_one_seed_covers_the_questions_only():
    scores = np.random.default_rng(1).normal(size=(1, 500))
    found = mean([scores])
    half = 1.9647 * scores.std(ddof=1) / math.sqrt(500)
    assert (found.low, found.high) == pytest.approx((scores.mean() - half, scores.mean() + half), rel=1e-3)
    assert (found.sd, found.seeds, found.questions, found.covers) == (None, 1, 500, QUESTIONS)


def test_one_question_covers_the_seeds_only():
    assert mean([np.array([[1.0], [2.0], [3.0]])]).covers == SEEDS
    alone = mean([np.array([[1.0]])], bounded=True)
    assert (alone.value, alone.low, alone.covers) == (1.0, None, "")


def test_all_right_is_as_certain_as_one_seed():
    found = mean([np.ones((3, 100))], bounded=True)
    assert (found.low, found.high) == pytest.approx(wilson(100, 100), abs=1e-5)
    assert (found.value, found.sd) == (1.0, 0.0)


def test_a_share_near_one_stays_a_share():
    scores = np.ones((3, 100))
    scores[0, :2] = 0
    found = mean([scores], bounded=True)
    assert 0.9 < found.low < found.value < found.high <= 1


def test_scores_that_do_not_vary_have_no_interval():
    same = np.full((3, 10), 0.3)
    assert not difference([same], [same]).has_interval
    assert not mean([same], bounded=True).has_interval


def test_the_average_of_columns_with_shared_seeds():
    """Its variance over seeds is that of the seeds' averages; that over questions adds up."""
    rng = np.random.default_rng(2)
    luck = rng.normal(size=(3, 1))
    columns = [luck + rng.normal(size=n) + 0.1 * rng.normal(size=(3, n)) for n in (40, 300)]
    found = mean(columns)
    assert found.value == pytest.approx((columns[0].mean() + columns[1].mean()) / 2)
    by_seed = [(columns[0][s].mean() + columns[1][s].mean()) / 2 for s in range(3)]
    assert found.sd == pytest.approx(np.std(by_seed, ddof=1))
    own = sum(parts(column)[1] for column in columns) / 4
    assert spread(columns).variance == pytest.approx(own + standard_error_squared(by_seed))
    assert found.questions == 340


def test_pairing_takes_out_what_two_rows_share():
    rng = np.random.default_rng(3)
    hard = rng.normal(size=200)
    ours, theirs = (hard + shift + 0.1 * rng.normal(size=(3, 200)) for shift in (0.5, 0.0))
    found, apart = difference([ours], [theirs]), mean([ours])
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.3 * (apart.high - apart.low)


def test_a_ratio_is_near_its_bootstrap():
    """With one seed: the percentiles of the ratio on resampled questions."""
    rng = np.random.default_rng(4)
    theirs = (rng.random((1, 800)) < 0.7).astype(float)
    ours = np.where(rng.random((1, 800)) < 0.1, 1 - theirs, theirs)
    found = ratio([ours], [theirs])
    draws = rng.integers(800, size=(4000, 800))
    low, high = np.percentile(ours[0][draws].mean(1) / theirs[0][draws].mean(1), [2.5, 97.5])
    assert found.value == pytest.approx(ours.mean() / theirs.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)
    assert ratio([ours], [np.zeros((1, 800))]) is None


def test_headlines_with_their_own_intervals():
    alone = of_headlines([0.4], [(0.3, 0.5)], 90)
    assert (alone.low, alone.high, alone.covers) == (0.3, 0.5, QUESTIONS)
    assert of_headlines([0.4], [None], 90).low is None
    three = of_headlines([1.0, 2.0, 3.0], [None] * 3, 0)
    assert three.covers == SEEDS
    assert three.high == pytest.approx(2 + 4.30265 / math.sqrt(3), rel=1e-5)
    both = of_headlines([1.0, 2.0, 3.0], [(0.0, 2.0)] * 3, 9)
    assert both.covers == BOTH
    # Half a width of 1 is a variance of 1 / 1.96^2, added to that over the seeds.
    variance = 1 / 3 + 1 / 1.95996**2
    df = variance**2 / ((1 / 3) ** 2 / 2)
    assert both.high == pytest.approx(2 + student(df) * math.sqrt(variance), rel=1e-4)


def normal_share(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


@pytest.mark.parametrize(
    ("seed_sd", "noise_sd"),
    [(0.0, 0.7), (0.15, 0.7), (0.4, 0.3)],
    ids=["seeds do not differ", "usual", "seeds differ most"],
)
def test_coverage_with_three_seeds_and_two_columns_of_200_questions(seed_sd, noise_sd):
    """Of simulated studies whose truth is known, 90 to 99% have it in their intervals.

    An answer is right if skill + luck of the seed + ease of the question + noise is above 0. Two rows share the
    questions, and half of a seed's luck.
    """
    rng = np.random.default_rng(5)
    skills, seeds, sizes, studies = (0.9, 0.7), 3, (200, 200), 300
    total = math.sqrt(seed_sd**2 + 1 + noise_sd**2)
    truth = [normal_share(skill / total) for skill in skills]
    inside = dict.fromkeys(("value", "average", "difference", "ratio"), 0)
    for _ in range(studies):
        common = seed_sd / math.sqrt(2) * rng.normal(size=(seeds, 1))
        luck = [common + seed_sd / math.sqrt(2) * rng.normal(size=(seeds, 1)) for _ in skills]
        rows = [[], []]
        for size in sizes:
            ease = rng.normal(size=size)
            for row, skill, own in zip(rows, skills, luck, strict=True):
                row.append((skill + own + ease + noise_sd * rng.normal(size=(seeds, size)) > 0).astype(float))
        theirs, ours = rows
        for name, found, true in (
            ("value", mean(ours[:1], bounded=True), truth[1]),
            ("average", mean(ours, bounded=True), truth[1]),
            ("difference", difference(ours, theirs), truth[1] - truth[0]),
            ("ratio", ratio(ours, theirs), truth[1] / truth[0]),
        ):
            inside[name] += found.low <= true <= found.high
    assert all(0.90 <= number / studies <= 0.995 for number in inside.values()), inside
