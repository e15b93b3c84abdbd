"""Where the last token of a prompt looks in the picture, layer by layer.

This token's attention decides the first token of the answer. No eager attention is needed, and no map of all tokens is
made: attention is run a second time for this one query, with the unit vectors as values, so that its output is the
query's attention to each token, in any family.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from llava.constants import IGNORE_INDEX
from llava.mm_utils import tokenizer_image_token
from llava.serve.chat import ChatSession
from visual_region.importance.image_attention import ImageAttentionRecorder
from visual_region.importance.samples import Reader
from visual_region.importance.sweep import sweep
from visual_region.importance.tokens import IMAGE

COLOURS = "inferno"
_SIDE = 448
"""Pixels of a drawn side."""
_OPACITY = 0.55
_LEAST = 1e-12
"""A layer that does not look at the picture is drawn dark."""


class AttentionMapError(ValueError):
    """Image tokens that cannot be laid over the picture."""


class LastTokenRecorder(ImageAttentionRecorder):
    """Attention of each row's last position to every position, a mean over heads: `(batch, layers, length)`.

    Rows are not padded on the right.
    """

    name = "last-token"

    def _attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        output = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        units = torch.eye(value.shape[2], device=value.device).expand(*value.shape[:2], -1, -1)
        last = None if mask is None else mask[:, :, -1:]
        if last is not None and last.is_floating_point():
            last = last.float()
        given, _ = sdpa_attention_forward(
            module, query[:, :, -1:].float(), key.float(), units, last, **kwargs | {"dropout": 0.0}
        )
        self._given = given[:, 0].mean(1, dtype=torch.float64).cpu()
        return output


@dataclass(frozen=True)
class AttentionMaps:
    """The attention of a prompt's last token to one picture.

    Attributes:
        picture: what the vision tower sees: padded, cropped or resized.
        shares: float64 `(layers, rows, columns)`: the share of the token's attention that each image token gets.
        original: each layer's number before any removal.
    """

    picture: Image.Image
    shares: np.ndarray
    original: tuple[int, ...]

    def over(self, layer: int) -> tuple[Image.Image, str]:
        """The picture with the attention of a layer, numbered as before any removal, and a line about it."""
        picture = self.picture.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        if layer not in self.original:
            return picture.convert("L").convert("RGB"), f"Layer {layer} is not in this model."
        place = self.original.index(layer)
        shares = self.shares[place]
        now = "" if place == layer else f", now layer {place}"
        line = f"Layer {layer}{now}: {100 * shares.sum():.1f}% of the attention is on the image"
        scaled = Image.fromarray((shares / max(shares.max(), _LEAST)).astype(np.float32)).resize(
            (_SIDE, _SIDE), Image.Resampling.NEAREST
        )
        heat = np.asarray(scaled)[..., None]
        colours = matplotlib.colormaps[COLOURS](heat[..., 0])[..., :3]
        # The picture stays visible where there is no attention.
        mixed = np.asarray(picture) / 255 * (1 - _OPACITY) + colours * _OPACITY
        strongest = 100 * shares.max()
        return (
            Image.fromarray((255 * mixed).round().astype(np.uint8)),
            f"{line}; the brightest patch gets {strongest:.2f}%, and an even share is {100 * shares.mean():.2f}%.",
        )


def attention_maps(
    session: ChatSession, processor: Any, layer_path: str, text: str, original: list[int]
) -> AttentionMaps:
    """The maps of a session's next question, which has one picture.

    Raises:
        AttentionMapError: the picture's tokens are not one square grid.
    """
    if not isinstance(session.pixels, torch.Tensor) or session.pixels.ndim != 4:
        raise AttentionMapError("this model reads a picture in several parts, so there is no map")
    ids = tokenizer_image_token(session.prompt(text), session.tokenizer, return_tensors="pt").unsqueeze(0)
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.full_like(ids, IGNORE_INDEX),
        "images": session.pixels,
    }
    reader = Reader(session.model, session.tokenizer, processor, session.conversation, Path())
    tokens = reader.token_batch(batch, (0,))
    ((_, numbers),) = sweep(session.model, [tokens], [LastTokenRecorder()], layer_path)
    image = numbers[LastTokenRecorder.name][0][:, (tokens.kinds[0] == IMAGE).cpu()]
    side = math.isqrt(image.shape[1])
    if side * side != image.shape[1]:
        raise AttentionMapError(f"the picture's {image.shape[1]} tokens are not one square grid, so there is no map")
    return AttentionMaps(_seen(session.pixels[0], processor), image.reshape(-1, side, side).numpy(), tuple(original))


def _seen(pixels: torch.Tensor, processor: Any) -> Image.Image:
    """Pixels `(3, height, width)` of the image processor as a picture."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    colours = (pixels.float().cpu() * std + mean).clamp(0, 1)
    return Image.fromarray((255 * colours).round().to(torch.uint8).permute(1, 2, 0).numpy())
