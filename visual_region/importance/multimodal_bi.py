"""Multimodal block influence: visual and text tokens have equal say, however many of each there are.

The paper, Appendix A: 1 - 1/2 (E over visual tokens of cos(X_i, X_i+1) + E over text tokens). Samples of text alone
take part in the second expectation.
"""

import torch

from visual_region.importance.block_influence import block_influence
from visual_region.importance.means import MeanOfMeans


def multimodal_bi(sums: torch.Tensor, counts: torch.Tensor) -> MeanOfMeans:
    """Arguments as in `block_influence`."""
    image = block_influence(sums, counts, ("image",))
    text = block_influence(sums, counts, ("prompt", "answer"))
    return MeanOfMeans((image, text))
