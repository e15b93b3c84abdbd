"""Image files: opening one, and finding the missing and broken ones of many before work begins."""

import base64
import io
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from llava.names import count, some

MISSING = "missing"
"""What `unreadable_images` says of an image that is not a file."""
_READERS = 8
"""Threads that look at images: most of that time is spent waiting for the disk."""
_UNREADABLE = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is missing, cut off, not an image, or too large."""


class BrokenImageError(ValueError):
    """An image that cannot be opened; the message names the file and what needed it.

    Attributes:
        image: its name, as the data names it.
        why: what is wrong with it.
    """

    def __init__(self, message: str, image: str = "", why: str = "") -> None:
        super().__init__(message)
        self.image = image
        self.why = why


def open_image(source: str | Path | io.BytesIO, needed_by: str = "", name: str | None = None) -> Image.Image:
    """The image as RGB, decoded whole.

    Args:
        source: path, or the bytes of an image file.
        needed_by: what the message says needs it, such as "sample 17".
        name: the image's name in the data; default: the path.

    Raises:
        BrokenImageError: missing, cut off, or not an image.
    """
    try:
        with Image.open(source) as image:
            return image.convert("RGB")
    except _UNREADABLE as error:
        shown = "" if isinstance(source, io.BytesIO) else f" {source}"
        needed = f" of {needed_by}" if needed_by else ""
        raise BrokenImageError(
            f"the image{shown}{needed} cannot be opened ({error}); `python -m llava.data.check` finds all such images "
            "of a data file",
            str(source) if name is None else name,
            str(error),
        ) from error


def decoded(image_data: str) -> io.BytesIO:
    """The bytes of an image in base64; raises `ValueError` if the text is not base64."""
    return io.BytesIO(base64.b64decode(image_data, validate=True))


def missing_images(names: Iterable[str], folder: str | Path) -> list[str]:
    """The names that are not files under `folder`, in their order, each once.

    Each folder is listed once: to ask for 665,000 files one by one takes minutes on a network disk.
    """
    listings: dict[Path, set[str]] = {}
    missing = []
    for name in dict.fromkeys(names):
        path = Path(folder) / name
        if path.parent not in listings:
            try:
                listings[path.parent] = {entry.name for entry in os.scandir(path.parent) if not entry.is_dir()}
            except OSError:
                listings[path.parent] = set()
        if path.name not in listings[path.parent]:
            missing.append(name)
    return missing


def unreadable_images(
    names: Iterable[str],
    folder: str | Path,
    data: Mapping[str, str] | None = None,
    whole: bool = False,
    workers: int = _READERS,
) -> dict[str, str]:
    """The images that are missing or broken: name -> what is wrong, sorted by name.

    Args:
        data: name -> image in base64, for images that the data file carries itself.
        whole: decode every pixel. Otherwise only the header is read, which finds missing, empty and foreign files in
            a fraction of the time; an image that is cut off further down is found when it is opened.
        workers: threads that read.
    """
    names, data = list(dict.fromkeys(names)), data or {}
    missing = set(missing_images([name for name in names if name not in data], folder))
    check = partial(_problem, folder=Path(folder), data=data, whole=whole)
    left = [name for name in names if name not in missing]
    with ThreadPoolExecutor(workers) as pool:
        # The bar appears only if this takes a while.
        found = list(tqdm(pool.map(check, left), total=len(left), desc="checking images", unit="image", delay=3))
    problems = {name: why for name, why in zip(left, found, strict=True) if why} | dict.fromkeys(missing, MISSING)
    return dict(sorted(problems.items()))


def _problem(name: str, folder: Path, data: Mapping[str, str], whole: bool) -> str | None:
    try:
        source = decoded(data[name]) if name in data else folder / name
        if isinstance(source, Path) and not source.stat().st_size:
            return "0 bytes"
        with Image.open(source) as image:
            if whole:
                image.convert("RGB")
    except _UNREADABLE as error:
        return str(error)
    return None


def describe_unreadable(problems: Mapping[str, str], folder: str | Path) -> str:
    """What `unreadable_images` found: how many are missing, how many are broken, and the first names of both."""
    missing = [name for name, why in problems.items() if why == MISSING]
    broken = [f"{name} ({why})" for name, why in problems.items() if why != MISSING]
    parts = []
    if missing:
        where = str(folder) or "the current folder"
        parts.append(f"{count(len(missing), 'image is', 'images are')} missing under {where}: {some(missing)}")
    if broken:
        parts.append(f"{count(len(broken), 'image', 'images')} cannot be opened: {some(broken)}")
    return "; ".join(parts)
