"""Pictures of visual_region/pictures as images in memory."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image


def drawn(draw: Callable[..., None], *args: Any) -> Image.Image:
    """What `draw(*args, path)` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        draw(*args, path)
        with Image.open(path) as image:
            return image.convert("RGB")
