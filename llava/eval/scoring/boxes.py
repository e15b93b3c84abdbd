"""Boxes in replies: reads them, and maps them from the frame that a model writes in to pixels of the image.

LLaVA-1.5's training data has boxes [x1, y1, x2, y2] in shares of the square to which its images are padded, with the
image in the middle (LLaVA#606). Bunny's data takes these samples from LLaVA's.
"""

import re

from llava.eval.scoring.pairing import ScoringError
from llava.eval.scoring.rules import Box

FRAMES = ("padded", "original")
"""Shares of the square of the longer side, with the image in its middle (the default); or of the image."""
_NUMBER = r"\s*(-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
_BOX = re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]")


def parse_box(text: str) -> Box | None:
    """The first "[x1, y1, x2, y2]" of a reply, as written; None if it has none."""
    found = _BOX.search(text)
    return tuple(map(float, found.groups())) if found else None  # type: ignore[return-value]


def box_text(box: Box, width: int, height: int) -> str:
    """A box in pixels of an image of `width` x `height` as LLaVA's training data writes it: shares of the padded frame.

    `[x1, y1, x2, y2]`, rounded to two decimals, without zeros at the end ("[0.4, 0.05, 0.62, 1.0]").
    """
    side = max(width, height)

    def share(place: float, size: int) -> float:
        # LLaVA's expand2square rounds the margin down.
        return round((min(max(place, 0), size) + (side - size) // 2) / side, 2)

    x1, y1, x2, y2 = box
    return str([share(x1, width), share(y1, height), share(x2, width), share(y2, height)])


def to_pixels(box: Box, width: int, height: int, frame: str) -> Box:
    """A box in shares of 1 -> in pixels of an image of `width` x `height`: corners in order, clipped to the image."""
    if frame not in FRAMES:
        raise ScoringError(f"frame {frame!r}; allowed: {', '.join(FRAMES)}")
    x1, y1, x2, y2 = box

    def corners(first: float, second: float, size: int) -> list[float]:
        side = max(width, height) if frame == "padded" else size
        # LLaVA's expand2square rounds the margin down.
        places = (share * side - (side - size) // 2 for share in (first, second))
        return sorted(min(max(place, 0.0), float(size)) for place in places)

    (left, right), (top, bottom) = corners(x1, x2, width), corners(y1, y2, height)
    return left, top, right, bottom
