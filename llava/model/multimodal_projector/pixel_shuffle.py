"""Fewer, wider image tokens: a pixel shuffle and a linear layer (as nanoVLM's ModalityProjector).

`--mm_projector_type pixel_shuffle2x` joins every 2 x 2 square of the tower's grid into one token of 4 times the width
(space to depth), so the language model reads a quarter of the tokens: 144 of CLIP-336's 576.
"""

import math

import torch
from torch import nn

from llava.model.multimodal_projector.types import ProjectorError, ProjectorType, Shapes


class PixelShuffleProjector(nn.Module):
    """Features `(..., grid * grid, width)` to tokens `(..., (grid / factor)^2, hidden_size)`."""

    def __init__(self, factor: int, width: int, hidden_size: int) -> None:
        super().__init__()
        self.factor = factor
        self.proj = nn.Linear(width * factor**2, hidden_size, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.proj(pixel_shuffle(features, self.factor))


def pixel_shuffle(features: torch.Tensor, factor: int) -> torch.Tensor:
    """Space to depth on a square grid in row order: `(..., n, width)` to `(..., n / factor^2, width * factor^2)`."""
    side = math.isqrt(_checked(factor, features.shape[-2])) * factor
    squares = features.unflatten(-2, (side // factor, factor, side // factor, factor)).transpose(-4, -3)
    return squares.flatten(-3).flatten(-3, -2)


def _checked(factor: int, tokens: int) -> int:
    """The number of tokens after the shuffle; raises `ProjectorError` if they do not fit."""
    side = math.isqrt(tokens)
    if side**2 != tokens or side % factor:
        found = f"a grid of {side} x {side}" if side**2 == tokens else "no square grid"
        raise ProjectorError(
            f"--mm_projector_type pixel_shuffle{factor}x joins squares of {factor} x {factor} image tokens, but the "
            f"tower returns {tokens} tokens, {found}. It needs a grid whose side is a multiple of {factor}, without a "
            "class token (--mm_vision_select_feature patch)"
        )
    return tokens // factor**2


def _type_of(shapes: Shapes, width: int) -> str | None:
    if set(shapes) != {"proj.weight"}:
        return None
    factor = math.isqrt(shapes["proj.weight"][1] // width)
    return f"pixel_shuffle{factor}x" if factor > 1 and factor**2 * width == shapes["proj.weight"][1] else None


PIXEL_SHUFFLE = ProjectorType(
    usage="pixel_shuffleNx (such as pixel_shuffle2x)",
    pattern=r"pixel_shuffle([2-9])x",
    build=lambda match, width, hidden_size: PixelShuffleProjector(int(match[1]), width, hidden_size),
    type_of=_type_of,
    tokens=lambda match, tower_tokens: _checked(int(match[1]), tower_tokens),
)
