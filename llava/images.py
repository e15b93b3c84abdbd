"""Opening image files, and finding missing and broken ones."""

import base64
import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from llava.names import count, some

MISSING = "missing"
"""The value in `unreadable_images` for a missing image."""
_READERS = 8
"""Threads that check images; they mostly wait for the disk."""
_UNREADABLE = (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError)
"""Pillow's errors for a file that is missing, cut off, not an image, or too large."""


class BrokenImageError(ValueError):
    """An image that cannot be opened: `image` is its name in the data, `why` the reason."""

    def __init__(self, message: str, image: str = "", why: str = "") -> None:
        super().__init__(message)
        self.image = image
        self.why = why


def open_image(source: str | Path | io.BytesIO, needed_by: str = "", name: str | None = None) -> Image.Image:
    """The image as RGB, fully decoded; raises `BrokenImageError`.

    Args:
        needed_by: for the message, such as "sample 17".
        name: the image's name in the data; default: the path.
    """
    with _broken_explained(source, needed_by, name), Image.open(source) as image:
        return image.convert("RGB")


@contextlib.contextmanager
def _broken_explained(source: str | Path | io.BytesIO, needed_by: str, name: str | None) -> Iterator[None]:
    """Turns Pillow's errors into a `BrokenImageError`."""
    try:
        yield
    except _UNREADABLE as error:
        shown = "" if isinstance(source, io.BytesIO) else f" {source}"
        needed = f" of {needed_by}" if needed_by else ""
        raise BrokenImageError(
            f"the image{shown}{needed} cannot be opened ({error}); `python -m llava.data.check` finds all such images "
            "of a data file",
            str(source) if name is None else name,
            str(error),
        ) from error


def image_size(source: str | Path | io.BytesIO, name: str | None = None) -> tuple[int, int]:
    """Width and height in pixels, from the image's header; raises `BrokenImageError`. `name`: as in `open_image`."""
    with _broken_explained(source, "", name), Image.open(source) as image:
        return image.size


def decoded(image_data: str) -> io.BytesIO:
    """The bytes of an image in base64; raises `ValueError` if the text is not base64."""
    return io.BytesIO(base64.b64decode(image_data, validate=True))


def missing_images(names: Iterable[str], folder: str | Path) -> list[str]:
    """The names that are not files under `folder`, in their order, each once.

    Each folder is listed once: checking 665,000 files one by one takes minutes on a network disk.
    """
    listings: dict[str, set[str]] = {}
    missing = []
    for name in dict.fromkeys(names):
        # Texts, as a `Path` per name would take longer than all the rest.
        parent, last = os.path.split(name)
        if parent not in listings:
            try:
                listings[parent] = {entry.name for entry in os.scandir(Path(folder, parent)) if entry.is_file()}
            except OSError:
                listings[parent] = set()
        if last not in listings[parent]:
            missing.append(name)
    return missing


def unreadable_images(
    names: Iterable[str],
    folder: str | Path,
    data: Mapping[str, str] | None = None,
    whole: bool = False,
    workers: int = _READERS,
) -> dict[str, str]:
    """The missing and broken images: name -> problem, sorted by name.

    Args:
        data: name -> image in base64, for images inside the data file.
        whole: decode every pixel. Otherwise only the header is read, which is faster but misses truncated images.
        workers: threads that read.
    """
    names, data = list(dict.fromkeys(names)), data or {}
    missing = set(missing_images([name for name in names if name not in data], folder))
    check = partial(_problem, folder=Path(folder), data=data, whole=whole)
    left = [name for name in names if name not in missing]
    with ThreadPoolExecutor(workers) as pool:
        found = list(tqdm(pool.map(check, left), total=len(left), desc="checking images", unit="image", delay=3))
    problems = {name: why for name, why in zip(left, found, strict=True) if why} | dict.fromkeys(missing, MISSING)
    return dict(sorted(problems.items()))


def image_sizes(
    names: Iterable[str], folder: str | Path, data: Mapping[str, str] | None = None, workers: int = _READERS
) -> dict[str, tuple[int, int]]:
    """Width and height of each image, from the headers, by name; raises `BrokenImageError`.

    Arguments as of `unreadable_images`.
    """
    names, data = list(dict.fromkeys(names)), data or {}

    def read(name: str) -> tuple[int, int]:
        return image_size(decoded(data[name]) if name in data else Path(folder, name), name)

    with ThreadPoolExecutor(workers) as pool:
        sizes = tqdm(pool.map(read, names), total=len(names), desc="sizes of images", unit="image", delay=3)
        return dict(zip(names, sizes, strict=True))


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
    """The result of `unreadable_images` as text: numbers and first names of missing and of broken images."""
    missing = [name for name, why in problems.items() if why == MISSING]
    broken = [f"{name} ({why})" for name, why in problems.items() if why != MISSING]
    parts = []
    if missing:
        where = str(folder) or "the current folder"
        parts.append(f"{count(len(missing), 'image is', 'images are')} missing under {where}: {some(missing)}")
    if broken:
        parts.append(f"{count(len(broken), 'image', 'images')} cannot be opened: {some(broken)}")
    return "; ".join(parts)
