import itertools

import pytest
import torch

from visual_region.commands.select import jaccard
from visual_region.importance.means import MeanOfMeans, SampleMean, mean_over
from visual_region.importance.resampling import interval, resampled, stability


def rows(values, weights=None):
    weights = [1.0] * len(values) if weights is None else weights
    return SampleMean(torch.tensor(values, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64))


def test_every_sample_is_drawn_as_often_as_the_counts_say():
    """Of the identity the mean over resamples is how often each sample was drawn, as a share."""
    each = SampleMean(torch.eye(7, dtype=torch.float64), torch.ones(7, dtype=torch.float64))
    counts = (7 * resampled(each, 50)).round()
    torch.testing.assert_close(counts, 7 * resampled(each, 50))
    assert (counts.sum(1) == 7).all()
    assert torch.equal(counts, (7 * resampled(each, 50)).round())
    assert not torch.equal(counts, (7 * resampled(each, 50, seed=1)).round())


def test_resampled_means_equal_means_of_the_drawn_rows():
    generator = torch.Generator().manual_seed(0)
    sums, counts = torch.rand(5, 3, generator=generator, dtype=torch.float64), torch.tensor([4, 0, 2, 9, 1])
    scores = mean_over(sums, counts)
    assert scores.per_sample[1].isnan().all()
    for draw in itertools.islice(itertools.product(range(5), repeat=5), 7, 3000, 331):
        weights = torch.bincount(torch.tensor(draw), minlength=5).double().unsqueeze(0)
        drawn = [i for i in draw if counts[i]]
        expected = torch.stack([sums[i] for i in drawn]).sum(0) / sum(int(counts[i]) for i in drawn)
        torch.testing.assert_close(scores.values(weights)[0], expected, atol=1e-12, rtol=0)


def test_a_sample_that_overflowed_is_not_a_zero():
    """Its rows are NaN, and it has a weight; a sample that the metric does not use has none."""
    scores = rows([[torch.nan, 0.2], [0.1, 0.4]])
    assert scores.values().isnan().tolist() == [True, False]
    assert scores.values(torch.ones(3, 2).double()).isnan().tolist() == [[True, False]] * 3
    unused = rows([[torch.nan, torch.nan], [0.1, 0.4]], [0.0, 1.0])
    assert unused.values().tolist() == [0.1, 0.4]


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """400 data sets of 40 normal samples: about 95% of their intervals hold the true mean, 0."""
    generator = torch.Generator().manual_seed(2)
    data = torch.randn(40, 400, generator=generator, dtype=torch.float64)
    low, high = interval(SampleMean(data, torch.ones(40, dtype=torch.float64)), 1000)
    covered = ((low < 0) & (high > 0)).double().mean().item()
    assert 0.90 < covered < 0.975


def test_parts_have_equal_say():
    image, text = rows([[0.2], [0.4]], [1.0, 3.0]), rows([[0.8], [0.8]], [100.0, 300.0])
    both = MeanOfMeans((image, text))
    assert both.values().item() == pytest.approx((0.35 + 0.8) / 2)
    assert both.per_sample.flatten().tolist() == pytest.approx([0.5, 0.6])


def test_resamples_without_a_single_image_are_passed_over():
    scores = rows([[torch.nan, torch.nan], [0.2, 0.4]], [0.0, 1.0])
    low, high = interval(scores, 200)
    assert low.tolist() == high.tolist() == pytest.approx([0.2, 0.4])
    assert stability(scores, 1, order="highest", resamples=200).share == [0, 1]


def test_stability_of_clear_and_of_tied_rankings():
    clear = rows([[0.9, 0.5, 0.1], [0.8, 0.4, 0.2], [0.9, 0.6, 0.1]])
    found = stability(clear, 2, order="highest", resamples=300)
    assert (found.layers, found.share, found.jaccard) == ((0, 1), [1, 1, 0], 1)
    assert stability(clear, 1, order="lowest", resamples=300).layers == (2,)
    # Which of the two layers leads depends on which samples were drawn.
    torn = rows([[0.9, 0.1], [0.1, 0.8]] * 4)
    found = stability(torn, 1, order="highest", resamples=2000)
    assert found.layers == (0,)
    assert 0.5 < found.share[0] < 0.8
    assert found.low == 0
    assert found.high == 1


def test_jaccard():
    assert jaccard({0, 1, 2}, {2, 3}) == 0.25
    assert jaccard({1}, {1}) == 1
