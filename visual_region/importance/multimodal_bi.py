"""Multimodal block influence: visual and text tokens have equal weight, however many of each there are.

The paper, Appendix A: 1 - 1/2 (E over visual tokens of cos(X_i, X_i+1) + E over text tokens). Text-only samples are
part of the second mean.
"""

import torch

from visual_region.importance.block_influence import CosineRecorder, by_kind
from visual_region.importance.means import MeanOfMeans
from visual_region.importance.metric import SampleMetric

_PARTS = ("bi-image", "bi-text")


def multimodal_bi(sums: torch.Tensor, counts: torch.Tensor) -> MeanOfMeans:
    found = by_kind(sums, counts)
    return MeanOfMeans(tuple(found[name] for name in _PARTS))


METRIC = SampleMetric(
    "multimodal-bi",
    "multimodal block influence",
    CosineRecorder,
    multimodal_bi,
    details=by_kind,
    mean_of=_PARTS,
    needs_images=True,
    unit="1 - cosine",
)
