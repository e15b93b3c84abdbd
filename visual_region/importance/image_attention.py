"""Image attention score: how much attention a layer pays to the image's tokens.

The paper, Appendix A: A_i = sum over image tokens t, heads h and query tokens j of Attn_i[h, j, t], divided by
(N_img * H). Figure 5 is its heat map, samples by layers.

No attention map is made. Attention is run a second time, with values that are 1 at image tokens and 0 elsewhere: its
output is each query's attention to the image, in any family, and memory is linear in the length.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from visual_region.importance.means import SampleMean, mean_over
from visual_region.importance.metric import SampleMetric
from visual_region.importance.sweep import Recorder
from visual_region.importance.tokens import IMAGE, KINDS, sum_by_kind

_NAME = "visual_region_image_attention"


class ImageAttentionRecorder(Recorder):
    """Attention to image tokens from each sample's image, prompt and answer tokens, a mean over heads:
    `(batch, layers, 3)`. The sum over the last dimension, divided by the number of image tokens, is A_i."""

    name = "attention"

    @contextlib.contextmanager
    def watching(self, decoder: nn.Module) -> Iterator[None]:
        AttentionInterface.register(_NAME, self._attend)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        config = decoder.config
        before = config._attn_implementation
        config._attn_implementation = _NAME
        try:
            yield
        finally:
            config._attn_implementation = before

    def begin(self, kinds: torch.Tensor) -> None:
        super().begin(kinds)
        self._image = kinds == IMAGE
        self._given = torch.zeros(len(kinds), len(KINDS), dtype=torch.float64)

    def layer(self, index: int, entering: torch.Tensor, leaving: torch.Tensor) -> None:
        self.rows.append(self._given)

    def _attend(
        self, module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        """The attention of transformers; also records each query's attention to the image."""
        output = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        if self._image.any():
            # Half precision is too coarse for sums of hundreds of small shares.
            exact = torch.float32 if query.dtype in (torch.float16, torch.bfloat16) else query.dtype
            mark = torch.zeros(value.shape, dtype=exact, device=value.device)
            mark[..., 0] = self._image.to(value.device).unsqueeze(1)
            if mask is not None and mask.is_floating_point():
                mask = mask.to(exact)
            kwargs["dropout"] = 0.0
            given, _ = sdpa_attention_forward(module, query.to(exact), key.to(exact), mark, mask, **kwargs)
            per_query = given[..., 0].mean(-1, dtype=torch.float64)
            self._given = sum_by_kind(per_query, self.kinds.to(value.device)).cpu()
        return output


def image_attention(sums: torch.Tensor, counts: torch.Tensor, kinds: tuple[str, ...] = tuple(KINDS)) -> SampleMean:
    """The mean of A_i, or of the share of queries of some kinds, over the samples that have images.

    From float64 sums `(samples, layers, 3)` and int64 counts `(samples, 3)`.
    """
    chosen = [list(KINDS).index(kind) for kind in kinds]
    images = counts[:, list(KINDS).index("image")]
    per_sample = mean_over(sums[:, :, chosen].sum(2), images).per_sample
    return SampleMean(per_sample, (images > 0).double())


METRIC = SampleMetric(
    "image-attention",
    "image attention score",
    ImageAttentionRecorder,
    image_attention,
    details=lambda sums, counts: {f"image-attention-{kind}": image_attention(sums, counts, (kind,)) for kind in KINDS},
    needs_images=True,
    unit="attention per image token",
)
