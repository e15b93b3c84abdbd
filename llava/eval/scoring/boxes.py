"""Boxes in replies: reads them, and maps them from the frame that a model writes in to pixels of the image.

LLaVA-1.5 was trained on boxes [x1, y1, x2, y2] in shares of the square to which its images are padded, with the image
in the middle; Bunny on shares of the original image.
"""

import re
from collections.abc import Mapping
from typing import Any

from llava.eval.scoring.pairing import ScoringError
from llava.eval.scoring.rules import Box
from llava.families import UnknownFamilyError, family_of

FRAMES = ("padded", "original")
_NUMBER = r"\s*(-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
_BOX = re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]")


def parse_box(text: str) -> Box | None:
    """The first "[x1, y1, x2, y2]" of a reply, as written; None if it has none."""
    found = _BOX.search(text)
    return tuple(map(float, found.groups())) if found else None  # type: ignore[return-value]


def to_pixels(box: Box, width: int, height: int, frame: str) -> Box:
    """A box in shares of 1, in pixels of the image: corners in order, clipped to the image.

    Args:
        width, height: the image's, in pixels.
        frame: `padded`: shares of the square of the longer side, the image centred in it (LLaVA's expand2square, which
            rounds the margin down); `original`: shares of the image.
    """
    if frame not in FRAMES:
        raise ScoringError(f"frame {frame!r}; allowed: {', '.join(FRAMES)}")
    x1, y1, x2, y2 = box
    if frame == "padded":
        side = max(width, height)
        left, top = (side - width) // 2, (side - height) // 2
        xs, ys = [x * side - left for x in (x1, x2)], [y * side - top for y in (y1, y2)]
    else:
        xs, ys = [x * width for x in (x1, x2)], [y * height for y in (y1, y2)]
    xs, ys = sorted(min(max(x, 0.0), float(width)) for x in xs), sorted(min(max(y, 0.0), float(height)) for y in ys)
    return xs[0], ys[0], xs[1], ys[1]


def frame_of(config: Mapping[str, Any]) -> tuple[str, str]:
    """The frame of a checkpoint's boxes, and why: by its family's training data and its image_aspect_ratio.

    Args:
        config: the checkpoint's config.json.

    Raises:
        ScoringError: a config that does not tell its family.
    """
    try:
        family = family_of(dict(config))
    except (UnknownFamilyError, KeyError) as error:
        raise ScoringError(f"the checkpoint does not tell the frame of its boxes ({error}); give --frame") from error
    ratio = config.get("image_aspect_ratio")
    padded = family.box_frame == "padded" and ratio == "pad"
    why = f"family {family.model_type} writes boxes of the {family.box_frame} image, image_aspect_ratio is {ratio!r}"
    return FRAMES[0] if padded else FRAMES[1], why
