"""What a type of projector is to the rest of the stack: one row of the builder's table."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of a projector's tensors, under the names that the module itself uses ("0.weight")."""


class ProjectorError(ValueError):
    """A projector of an unknown type, one that does not fit the tower, or a file that does not fit the config."""


def _unchanged(match: re.Match[str], tower_tokens: int) -> int:
    return tower_tokens


@dataclass(frozen=True)
class ProjectorType:
    """A type of projector.

    Attributes:
        usage: what messages call it, such as "mlpNx_gelu (such as mlp2x_gelu)".
        pattern: a regular expression for the values of `--mm_projector_type` that mean it.
        build: `(match, width of the tower, width of the language model)` to the module, which takes features
            `(..., tokens, width)`.
        type_of: `(shapes, width of the tower)` to the value of `--mm_projector_type` that has tensors of these shapes;
            None if this type has none.
        tokens: `(match, tokens of the tower)` to the number of tokens that the language model reads per image. Raises
            `ProjectorError` for a number that the projector cannot take.
    """

    usage: str
    pattern: str
    build: Callable[[re.Match[str], int, int], nn.Module]
    type_of: Callable[[Shapes, int], str | None]
    tokens: Callable[[re.Match[str], int], int] = _unchanged
