"""Opens an image from a file or a web address."""

import urllib.error
import urllib.request
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from llava.images import BrokenImageError, open_image

TIMEOUT_S = 20.0
"""Seconds."""
_MAX_BYTES = 64 * 1024 * 1024


class ImageSourceError(ValueError):
    """An image that cannot be opened or fetched."""


def load_image(image_file: str, timeout: float = TIMEOUT_S) -> Image.Image:
    """The image of a path or an http(s) address, as RGB.

    Raises:
        ImageSourceError: no such file, no answer, larger than 64 MiB, or not an image.
    """
    if not image_file.startswith(("http://", "https://")):
        if not Path(image_file).is_file():
            raise ImageSourceError(f"image file {image_file} does not exist")
        source: str | BytesIO = image_file
    else:
        try:
            source = BytesIO(_fetch(image_file, timeout))
        except urllib.error.HTTPError as error:
            raise ImageSourceError(f"image {image_file}: the server answered {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise ImageSourceError(f"image {image_file} cannot be fetched: {error.reason}") from error
        except TimeoutError as error:
            raise ImageSourceError(f"image {image_file}: no answer within {timeout:g} s") from error
    try:
        return open_image(source)
    except BrokenImageError as error:
        foreign = isinstance(error.__cause__, UnidentifiedImageError)
        why = "is not an image that Pillow can read" if foreign else f"cannot be opened ({error.why})"
        raise ImageSourceError(f"image {image_file} {why}") from error


def load_images(image_files: Sequence[str]) -> list[Image.Image]:
    return [load_image(file) for file in image_files]


def _fetch(address: str, timeout: float) -> bytes:
    # Some servers refuse Python's user agent.
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (llava)"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        data = answer.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ImageSourceError(f"image {address} is larger than {_MAX_BYTES >> 20} MiB")
    return data
