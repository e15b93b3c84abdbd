"""Which token is what: padding, image, prompt or answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

PADDING, IMAGE, PROMPT, ANSWER = 0, 1, 2, 3
KINDS: dict[str, int] = {"image": IMAGE, "prompt": PROMPT, "answer": ANSWER}
"""The kinds that count, in the order in which sums by kind are kept."""


@dataclass(frozen=True)
class TokenBatch:
    """A batch as the decoder takes it.

    Attributes:
        inputs: keyword arguments of the decoder's forward (`inputs_embeds` or `input_ids`, `attention_mask`,
            `position_ids`), padded on either side.
        kinds: int64 `(batch, length)`, of the constants above.
        samples: the index of each row's sample.
    """

    inputs: Mapping[str, Any]
    kinds: torch.Tensor
    samples: tuple[int, ...]


def count_kinds(kinds: torch.Tensor) -> torch.Tensor:
    """int64 `(batch, 3)`: image, prompt and answer tokens of each row."""
    return torch.stack([(kinds == kind).sum(1) for kind in KINDS.values()], dim=1)


def sum_by_kind(values: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    """Sums of float64 `(batch, length)` over each row's image, prompt and answer tokens: `(batch, 3)`.

    Padding is masked and not multiplied by 0, so its values may be NaN.
    """
    zero = values.new_zeros(())
    return torch.stack([torch.where(kinds == kind, values, zero).sum(1) for kind in KINDS.values()], dim=1)


def last_positions(kinds: torch.Tensor) -> torch.Tensor:
    """int64 `(batch, 2)`: where each row's prompt ends, and where the row ends.

    The prompt ends before the first answer token: under causal attention the state there is that of the prompt
    alone, from which the answer's first token is read. A row without an answer, or that begins with it, ends its
    prompt at its last token.
    """
    places = torch.arange(kinds.shape[1], device=kinds.device).expand_as(kinds)
    end = places.masked_fill(kinds == PADDING, -1).amax(1)
    first_answer = places.masked_fill(kinds != ANSWER, kinds.shape[1]).amin(1)
    before = (kinds != PADDING) & (places < first_answer.unsqueeze(1))
    prompt_end = places.masked_fill(~before, -1).amax(1)
    return torch.stack([torch.where(prompt_end < 0, end, prompt_end), end], dim=1)
