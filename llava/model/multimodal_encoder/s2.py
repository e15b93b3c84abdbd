"""S2: features of an image at several sizes, from a tower for one size.

Shi et al., "When Do We Not Need Larger Vision Models?" (2024), section 3; the arithmetic is that of upstream's package
s2wrapper. The image is resized to each scale and encoded in tiles of the tower's size. The maps of the scales are
averaged down to the first scale's grid and concatenated in the channels, so the number of tokens stays the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor


def multiscale_features(
    encode: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, scales: Sequence[int]
) -> torch.Tensor:
    """Features `(batch, grid * grid, width * len(scales))` of images `(batch, 3, size, size)`.

    `encode` maps tiles `(n, 3, scales[0], scales[0])` to tokens `(n, grid * grid, width)`. `scales` are ascending sizes
    in pixels, each a multiple of the first.
    """
    if images.shape[-1] != images.shape[-2]:
        raise ValueError(f"S2 takes square images, not {tuple(images.shape[-2:])}")
    maps = []
    for scale in scales:
        resized = nn.functional.interpolate(images.float(), size=(scale, scale), mode="bicubic").to(images.dtype)
        maps.append(_encode_tiles(encode, resized, scale // scales[0]))
    grid = maps[0].shape[-1]
    pooled = [nn.functional.interpolate(m.float(), size=(grid, grid), mode="area").to(m.dtype) for m in maps]
    return torch.cat(pooled, dim=1).flatten(2).transpose(1, 2)


def _encode_tiles(encode: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, split: int) -> torch.Tensor:
    """One map `(batch, width, split * grid, split * grid)` from `split` x `split` tiles per image."""
    batch, channels, size, _ = images.shape
    tile = size // split
    tiles = images.reshape(batch, channels, split, tile, split, tile).permute(2, 4, 0, 1, 3, 5)
    tokens = encode(tiles.reshape(split * split * batch, channels, tile, tile))
    grid = round(tokens.shape[1] ** 0.5)
    if grid * grid != tokens.shape[1]:
        raise ValueError(f"S2 needs a tower with a square grid of tokens; this one returns {tokens.shape[1]}")
    maps = tokens.transpose(1, 2).reshape(split, split, batch, -1, grid, grid).permute(2, 3, 0, 4, 1, 5)
    return maps.reshape(batch, -1, split * grid, split * grid)


def parse_scales(text: str | Sequence[int] | None, image_size: int) -> list[int]:
    """`s2_scales` ("384,768,1152"; default: 1, 2 and 3 times the tower's size), ascending; raises `ValueError`."""
    if not text:
        return [image_size * factor for factor in (1, 2, 3)]
    try:
        scales = sorted(int(part) for part in (text.split(",") if isinstance(text, str) else text))
    except ValueError as error:
        raise ValueError(f"s2_scales {text!r} is not a list of sizes such as 384,768,1152") from error
    if scales[0] != image_size or any(scale % image_size for scale in scales):
        raise ValueError(
            f"s2_scales {text!r} does not fit a tower for images of {image_size} pixels: the first must be "
            f"{image_size}, the others multiples of it"
        )
    return scales


class MultiScale:
    """A mixin in front of a tower class: features at the scales of `s2_scales`."""

    def __init__(self, vision_tower: str, tower_config: PreTrainedConfig, args: Any) -> None:
        super().__init__(vision_tower, tower_config, args)
        self.s2_scales = parse_scales(getattr(args, "s2_scales", None), self.cfg_only.image_size)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return multiscale_features(super().encode, images, self.s2_scales)

    def load_processor(self) -> BaseImageProcessor:
        """The processor, which returns pixels of the largest scale."""
        if self.image_processor is None:
            processor = super().load_processor()
            side = self.s2_scales[-1]
            square = {"height": side, "width": side}
            processor.size = {"shortest_edge": side} if processor.size.shortest_edge else square
            processor.crop_size = square
        return self.image_processor

    @property
    def hidden_size(self) -> int:
        return super().hidden_size * len(self.s2_scales)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"s2_scales": self.s2_scales}
