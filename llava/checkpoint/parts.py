"""The part of a LLaVA that a weight belongs to, by its name in our layout, whatever precedes it."""

import re

NEWLINE = "image_newline"
"""The vector at the end of each line of an image's tokens, which trains with the projector (LLaVA-1.6)."""
_PROJECTOR = re.compile(rf"(?:.*\.)?(mm_projector\..+|{NEWLINE})")


def projector_key(name: str) -> str | None:
    """A projector's weight without what precedes it, `mm_projector.0.weight` or `image_newline`; None for others."""
    match = _PROJECTOR.fullmatch(name)
    return match[1] if match else None


def is_projector(name: str) -> bool:
    return projector_key(name) is not None


def is_vision(name: str) -> bool:
    """Whether a plain language model lacks the weight: those of the projector and of the tower."""
    return is_projector(name) or "vision_tower." in name
