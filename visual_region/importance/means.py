"""The score of each layer as a mean over samples, and the same mean over resamples."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SampleMean:
    """Scores and weights of the samples.

    Attributes:
        per_sample: float64 `(samples, layers)`; rows of NaN for samples that the metric does not use.
        weights: float64 `(samples,)`: the tokens of each row, or 1; 0 for rows of NaN.
    """

    per_sample: torch.Tensor
    weights: torch.Tensor

    def values(self, draws: torch.Tensor | None = None) -> torch.Tensor:
        """The weighted mean, float64 `(layers,)`; or one per resample, `(resamples, layers)`, NaN if its weights are 0.

        `draws` `(resamples, samples)` is how often each sample was drawn.
        """
        weights = self.weights.unsqueeze(1)
        # A row of NaN with a weight is of states that overflowed, and makes the mean NaN.
        weighted = torch.where(weights > 0, self.per_sample, 0.0) * weights
        if draws is None:
            return weighted.sum(0) / self.weights.sum()
        return (draws @ weighted) / (draws @ self.weights).unsqueeze(1)


@dataclass(frozen=True)
class MeanOfMeans:
    """The mean of several means, each with equal weight (multimodal BI: of visual and of text tokens)."""

    parts: tuple[SampleMean, ...]

    @property
    def per_sample(self) -> torch.Tensor:
        """float64 `(samples, layers)`; NaN if a sample lacks a part."""
        return torch.stack([part.per_sample for part in self.parts]).mean(0)

    @property
    def weights(self) -> torch.Tensor:
        """1 for the samples that have every part."""
        return torch.stack([part.weights > 0 for part in self.parts]).all(0).double()

    def values(self, draws: torch.Tensor | None = None) -> torch.Tensor:
        return torch.stack([part.values(draws) for part in self.parts]).mean(0)


Scores = SampleMean | MeanOfMeans


def mean_over(sums: torch.Tensor, counts: torch.Tensor) -> SampleMean:
    """From each sample's sum over its tokens `(samples, layers)` and the number of these `(samples,)`."""
    counts = counts.double()
    return SampleMean(torch.where(counts.unsqueeze(1) > 0, sums / counts.unsqueeze(1), torch.nan), counts)
