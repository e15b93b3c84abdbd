"""MMBench's TSV files: reading them whole, their options and images."""

import base64
import binascii
import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from llava.eval.answers import ScoringError

LETTERS = ("A", "B", "C", "D")
NEEDED = ("index", "question", "A", "B", "image")
# Each rotation of a question has the question's index plus a multiple of this.
ROTATION = 1_000_000
# VLMEvalKit's files give the index of another row where the image is the same; no image is as short as that.
SHORTEST_IMAGE = 64
_EMPTY = {"", "none", "nan", "-nan", "na", "<na>", "n/a", "#na", "#n/a", "#n/a n/a", "null"}
_EMPTY |= {"1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}
Row = dict[str, str]


def is_none(value: str | None) -> bool:
    """Whether a cell is empty: upstream reads the file with pandas, which takes several words for that."""
    return value is None or value.strip().lower() in _EMPTY


def options_of(row: Mapping[str, str]) -> list[str]:
    """The options, up to the first empty one."""
    options: list[str] = []
    for letter in LETTERS:
        if is_none(row.get(letter)):
            break
        options.append(row[letter])
    return options


def read_tsv(path: str | Path) -> list[Row]:
    """The rows of a file as texts, images still in base64.

    Raises:
        ScoringError: no such file, columns that are not MMBench's, or a row that is cut off; names its line.
    """
    try:
        # Images are cells of megabytes.
        csv.field_size_limit(sys.maxsize)
        with open(path, encoding="utf-8", newline="") as file:
            # Not strict: a quote that is not doubled is read as pandas, and so upstream, reads it.
            reader = csv.DictReader(file, delimiter="\t")
            rows = list(_whole_rows(path, reader))
    except FileNotFoundError as error:
        raise ScoringError(f"{path} does not exist") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ScoringError(f"{path} is cut off or no TSV: {error}") from error
    if not rows:
        raise ScoringError(f"{path} holds no questions")
    return _with_images(path, rows)


def _whole_rows(path: str | Path, reader: csv.DictReader) -> Iterable[Row]:
    columns = reader.fieldnames or []
    absent = [name for name in NEEDED if name not in columns]
    if absent:
        raise ScoringError(f"{path} has no column {', '.join(absent)}; is it an MMBench TSV? It has {columns[:14]}")
    for row in reader:
        if None in row or None in row.values():
            found = sum(value is not None for value in row.values())
            raise ScoringError(
                f"{path}, line {reader.line_num}: a row with {found} of {len(columns)} cells; the file is cut off, "
                "download it again"
            )
        if not row["index"].strip().isdigit():
            raise ScoringError(f"{path}, line {reader.line_num}: the index {row['index'][:40]!r} is no number")
        if len(options_of(row)) < 2:
            raise ScoringError(f"{path}: question {row['index']} has fewer than two options")
        yield row


def _with_images(path: str | Path, rows: Sequence[Row]) -> list[Row]:
    """Rows whose images are their own; a cut-off one is an error."""
    images = {row["index"]: row["image"].strip() for row in rows}
    if len(images) < len(rows):
        raise ScoringError(f"{path} holds {len(rows) - len(images)} indexes twice")
    whole = []
    for row in rows:
        image = images[row["index"]]
        if len(image) < SHORTEST_IMAGE and image in images:
            image = images[image]
        if len(image) < SHORTEST_IMAGE or len(image) % 4:
            raise ScoringError(f"{path}: the image of question {row['index']} is cut off; download the file again")
        whole.append({**row, "image": image})
    return whole


def decode_image(row: Mapping[str, str]) -> Image.Image:
    """The row's image, read whole.

    Raises:
        ScoringError: it cannot be read.
    """
    try:
        image = Image.open(io.BytesIO(base64.b64decode(row["image"], validate=True)))
        image.load()
    except (binascii.Error, OSError, ValueError) as error:
        raise ScoringError(f"the image of question {row['index']} cannot be read: {error}") from error
    return image


def question_of(index: str | int) -> int:
    """The index of the question that a row is a rotation of."""
    return int(index) % ROTATION


def is_rotation(index: str | int) -> bool:
    return int(index) >= ROTATION
