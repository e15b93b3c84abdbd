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


def analysis_of_variance(scores):
    """The variance of the grand mean of one column by plain loops: estimated components, put together."""
    number, asked = len(scores), len(scores[0])
    grand = sum(map(sum, scores)) / (number * asked)
    of_seed = [sum(row) / asked for row in scores]
    of_question = [sum(row[q] for row in scores) / number for q in range(asked)]
    seeds = asked * sum((m - grand) ** 2 for m in of_seed) / (number - 1)
    questions = number * sum((m - grand) ** 2 for m in of_question) / (asked - 1)
    residual = sum(
        (scores[s][q] - of_seed[s] - of_question[q] + grand) ** 2 for s in range(number) for q in range(asked)
    ) / ((number - 1) * (asked - 1))
    between = (seeds - residual) / asked
    components = {"seed": between, "question": max(0.0, (questions - residual) / number), "residual": residual}
    return components["seed"] / number + components["question"] / asked + components["residual"] / (number * asked)


@pytest.mark.parametrize("shape", [(3, 50), (2, 7), (5, 400)])
def test_variance_of_one_column_is_that_of_its_components(shape):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(shape[0], 1)) + rng.normal(size=shape[1]) + rng.normal(size=shape)
    found = spread([scores])
    assert found.variance == pytest.approx(analysis_of_variance(scores.tolist()))
    assert found.covers == BOTH
    assert found.df >= 1


def test_questions_that_do_not_differ_leave_a_t_interval_over_seeds():
    """The usual formula for the mean of a few independent numbers."""
    scores = np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.2], [2.0, 4.0, 1.0, 3.3]])
    by_seed = scores.mean(1)
    found = mean([scores])
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
    own = sum(analysis_of_variance(c.tolist()) - np.var(c.mean(1), ddof=1) / 3 for c in columns) / 4
    assert spread(columns).variance == pytest.approx(own + np.var(by_seed, ddof=1) / 3)
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
    skills, seeds, sizes, studies = (0.9, 0.7), 3, (200, 200), 400
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
