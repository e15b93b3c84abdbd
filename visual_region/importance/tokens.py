"""The kind of each token: padding, image, prompt or answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

PADDING, IMAGE, PROMPT, ANSWER = 0, 1, 2, 3
KINDS: dict[str, int] = {"image": IMAGE, "prompt": PROMPT, "answer": ANSWER}
"""The kinds without padding, in the order of sums by kind."""


@dataclass(frozen=True)
class TokenBatch:
    """A batch: keyword arguments of the decoder, kinds of tokens int64 `(batch, length)`, the sample of each row."""

    inputs: Mapping[str, Any]
    kinds: torch.Tensor
    samples: tuple[int, ...]


def count_kinds(kinds: torch.Tensor) -> torch.Tensor:
    """int64 `(batch, 3)`: image, prompt and answer tokens of each row."""
    return torch.stack([(kinds == kind).sum(1) for kind in KINDS.values()], dim=1)


def sum_by_kind(values: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    """Sums of float64 `(batch, length)` over each row's image, prompt and answer tokens: `(batch, 3)`.

    The values of padding may be NaN.
    """
    zero = values.new_zeros(())
    return torch.stack([torch.where(kinds == kind, values, zero).sum(1) for kind in KINDS.values()], dim=1)


def last_positions(kinds: torch.Tensor) -> torch.Tensor:
    """int64 `(batch, 2)`: the last position of each row's prompt, and of the row.

    The prompt ends before the first answer token; in rows without an answer, or that begin with it, at the last token.
    A prompt that ends with an image (of captions, in the template `plain`) has no last token of text: there, too, the
    last token of the row is taken.
    """
    places = torch.arange(kinds.shape[1], device=kinds.device).expand_as(kinds)
    end = places.masked_fill(kinds == PADDING, -1).amax(1)
    first_answer = places.masked_fill(kinds != ANSWER, kinds.shape[1]).amin(1)
    before = (kinds != PADDING) & (places < first_answer.unsqueeze(1))
    prompt_end = places.masked_fill(~before, -1).amax(1)
    kind = kinds.gather(1, prompt_end.clamp(min=0).unsqueeze(1)).squeeze(1)
    return torch.stack([torch.where((prompt_end < 0) | (kind == IMAGE), end, prompt_end), end], dim=1)
