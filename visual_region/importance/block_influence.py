"""Block influence: 1 - E[cos(X_i, X_i+1)] over samples and tokens (the paper, Appendix A; ShortGPT).

All tokens have equal weight: image, prompt and answer, without padding.
"""

import torch

from visual_region.importance.means import SampleMean, mean_over
from visual_region.importance.metric import SampleMetric
from visual_region.importance.sweep import Recorder
from visual_region.importance.tokens import KINDS, sum_by_kind


class CosineRecorder(Recorder):
    """Sums of 1 - cos(entering, leaving) over each sample's image, prompt and answer tokens: `(batch, layers, 3)`."""

    name = "cosine"

    def begin(self, kinds: torch.Tensor) -> None:
        super().begin(kinds)
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def layer(self, index: int, entering: torch.Tensor, leaving: torch.Tensor) -> None:
        # The input of a layer is the output of the one before: its squared norms are known.
        known = self._last is not None and self._last[0] is entering
        before = self._last[1] if known else _dot(entering, entering)
        after = _dot(leaving, leaving)
        size = (before * after).sqrt().clamp(min=torch.finfo(torch.float64).tiny)
        # The model's layers may be on several devices.
        self.rows.append(sum_by_kind(1 - _dot(entering, leaving) / size, self.kinds.to(entering.device)).cpu())
        self._last = (leaving, after)

    def end(self) -> torch.Tensor:
        self._last = None
        return super().end()


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Dot products over the last dimension, summed in float64; `(batch, length)`."""
    if a.dtype in (torch.float16, torch.bfloat16):
        a, b = a.float(), b.float()
    return (a * b).sum(-1, dtype=torch.float64)


def block_influence(sums: torch.Tensor, counts: torch.Tensor, kinds: tuple[str, ...] = tuple(KINDS)) -> SampleMean:
    """Over the tokens of some kinds, from float64 sums `(samples, layers, 3)` and int64 counts `(samples, 3)`."""
    chosen = [list(KINDS).index(kind) for kind in kinds]
    return mean_over(sums[:, :, chosen].sum(2), counts[:, chosen].sum(1))


def by_kind(sums: torch.Tensor, counts: torch.Tensor) -> dict[str, SampleMean]:
    """Block influence over the tokens of each kind, and over all text."""
    subsets = {kind: (kind,) for kind in KINDS} | {"text": ("prompt", "answer")}
    return {f"bi-{name}": block_influence(sums, counts, kinds) for name, kinds in subsets.items()}


METRIC = SampleMetric("bi", "block influence", CosineRecorder, block_influence, details=by_kind, unit="1 - cosine")
