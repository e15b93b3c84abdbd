"""Bootstrap over samples: intervals of a score, and how stable its top-k is."""

from dataclasses import dataclass

import torch

from visual_region.importance.means import Scores

RESAMPLES, CONFIDENCE = 1000, 0.95


def draw_counts(samples: int, resamples: int = RESAMPLES, seed: int = 0) -> torch.Tensor:
    """How often each sample is drawn in each resample, with replacement: float64 `(resamples, samples)`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(samples, (resamples, samples), generator=generator)
    ones = torch.ones(resamples, samples, dtype=torch.float64)
    return torch.zeros(resamples, samples, dtype=torch.float64).scatter_add_(1, drawn, ones)


def interval(scores: Scores, draws: torch.Tensor, confidence: float = CONFIDENCE) -> tuple[torch.Tensor, torch.Tensor]:
    """The percentile interval of each layer's value, `(low, high)`, float64 `(layers,)`."""
    tail = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = torch.nanquantile(scores.values(draws), tail, dim=0)
    return low, high


@dataclass(frozen=True)
class Stability:
    """Of the k layers that a metric puts first.

    Attributes:
        layers: the k layers, sorted.
        share: for each layer of the model, the share of resamples in which it is among the first k; `(layers,)`.
        jaccard: mean overlap of a resample's first k with `layers`.
        low, high: the percentile interval of that overlap.
    """

    layers: tuple[int, ...]
    share: list[float]
    jaccard: float
    low: float
    high: float


def stability(scores: Scores, draws: torch.Tensor, k: int, lowest: bool, confidence: float = CONFIDENCE) -> Stability:
    """Resamples the samples and ranks the layers anew each time."""
    resampled = scores.values(draws)
    resampled = resampled[~resampled.isnan().any(1)]
    chosen = _first(scores.values().unsqueeze(0), k, lowest)[0]
    hits = _first(resampled, k, lowest)
    common = (hits & chosen).sum(1).double()
    overlap = common / (2 * k - common)
    tail = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = torch.quantile(overlap, tail).tolist()
    layers = tuple(chosen.nonzero().flatten().tolist())
    return Stability(layers, hits.double().mean(0).tolist(), overlap.mean().item(), low, high)


def _first(values: torch.Tensor, k: int, lowest: bool) -> torch.Tensor:
    """bool `(rows, layers)`: whether a layer is among its row's first k; of equal scores the lower layer goes first."""
    order = values.argsort(dim=1, descending=not lowest, stable=True)
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, order[:, :k], True)


def jaccard(a: set[int], b: set[int]) -> float:
    """Layers in both as a share of layers in either."""
    return len(a & b) / len(a | b)
