"""Bootstrap over samples: intervals of scores, and the stability of the first k layers."""

from dataclasses import dataclass

import numpy as np
import torch

from llava.eval.scoring.statistics import draw_counts
from visual_region.importance.means import Scores
from visual_region.strategies import ORDERS

RESAMPLES, CONFIDENCE = 1000, 0.95
_TAILS = torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], dtype=torch.float64)


def resampled(scores: Scores, resamples: int = RESAMPLES, seed: int = 0) -> torch.Tensor:
    """The values over samples drawn with replacement, float64 `(resamples, layers)`."""
    once, generator = np.ones(len(scores.weights), dtype=np.int64), np.random.default_rng(seed)
    draws = draw_counts(
        once, resamples, generator, lambda drawn: scores.values(torch.from_numpy(drawn).double()).numpy()
    )
    return torch.from_numpy(draws)


def interval(scores: Scores, resamples: int = RESAMPLES, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The percentile interval of each layer's value, `(low, high)`, float64 `(layers,)`."""
    return torch.nanquantile(resampled(scores, resamples, seed), _TAILS, dim=0).unbind()


@dataclass(frozen=True)
class Stability:
    """The stability of the k layers that a metric chooses, `layers` (sorted).

    Attributes:
        share: for each layer of the model, the share of resamples in which it is chosen.
        jaccard: mean overlap of the layers chosen in a resample with `layers`; low, high: its percentile interval.
    """

    layers: tuple[int, ...]
    share: list[float]
    jaccard: float
    low: float
    high: float


def stability(scores: Scores, k: int, order: str, resamples: int = RESAMPLES, seed: int = 0) -> Stability:
    """Resamples, and chooses the layers of each resample by an order of `ORDERS`."""
    values = resampled(scores, resamples, seed)
    values = values[~values.isnan().any(1)]
    chosen = _chosen(scores.values().unsqueeze(0), k, order)[0]
    hits = _chosen(values, k, order)
    common = (hits & chosen).sum(1).double()
    overlap = common / (2 * k - common)
    low, high = torch.quantile(overlap, _TAILS).tolist()
    layers = tuple(chosen.nonzero().flatten().tolist())
    return Stability(layers, hits.double().mean(0).tolist(), overlap.mean().item(), low, high)


def _chosen(values: torch.Tensor, k: int, order: str) -> torch.Tensor:
    """bool `(rows, layers)`: whether a layer is among the k that its row chooses."""
    layers = torch.tensor([ORDERS[order](row, k) for row in values.tolist()], dtype=torch.long)
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, layers.view(len(values), k), True)
