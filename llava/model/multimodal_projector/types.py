"""The type of a row in the builder's table of projectors."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of a projector's tensors, by the module's own names ("0.weight")."""


class ProjectorError(ValueError):
    """An unknown type of projector, or a tower or file that does not fit it."""


@dataclass(frozen=True)
class ProjectorType:
    """A type of projector.

    Attributes:
        usage: its name in messages, such as "mlpNx_gelu (such as mlp2x_gelu)".
        pattern: regular expression for its values of `--mm_projector_type`.
        build: `(match, width of the tower, width of the language model)` to the module.
        type_of: `(shapes, width of the tower)` to the value of `--mm_projector_type` with such tensors, or None.
        tokens: `(match, tokens of the tower)` to the tokens per image after the projector; raises `ProjectorError`.
    """

    usage: str
    pattern: str
    build: Callable[[re.Match[str], int, int], nn.Module]
    type_of: Callable[[Shapes, int], str | None]
    tokens: Callable[[re.Match[str], int], int] = lambda match, tower_tokens: tower_tokens
