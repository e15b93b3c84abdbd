"""MMBench's TSV files: reads them whole, with their options and images."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from PIL import Image

from llava.eval.scoring.pairing import ScoringError
from llava.names import some

LETTERS = ("A", "B", "C", "D")
NEEDED = ("index", "question", "A", "B", "image")
# Each rotation of a question has the question's index plus a multiple of this.
ROTATION = 1_000_000
# VLMEvalKit's files give the index of another row if the image is the same; no image is as short as that.
SHORTEST_IMAGE = 64
_EMPTY = {"", "NA", "<NA>", "N/A", "n/a", "#NA", "#N/A", "#N/A N/A", "NULL", "null", "-nan", "-NaN"}
_EMPTY |= {"1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"}
Row = dict[str, str]


def is_none(value: str | None) -> bool:
    """Whether a cell is empty, by the words that pandas reads as empty: upstream reads the file with it.

    Upstream then asks whether the lower-case text is "nan" or "none". "Na" is a text, such as the symbol of sodium.
    """
    return value is None or value.strip() in _EMPTY or value.strip().lower() in ("nan", "none")


def options_of(row: Mapping[str, str]) -> list[str]:
    """The options, up to the first empty one."""
    return list(takewhile(lambda text: not is_none(text), map(row.get, LETTERS)))


def read_tsv(path: str | Path) -> list[Row]:
    """The rows of a whole file as texts, each with its own image in base64.

    Raises:
        ScoringError: not MMBench's columns, or lines that are cut off or hold no whole image; names them.
    """
    try:
        # Images are cells of megabytes.
        csv.field_size_limit(1 << 30)
        with open(path, encoding="utf-8", newline="") as file:
            # Not strict: a quote that is not doubled is read as pandas, and so upstream, reads it.
            rows = _whole_rows(path, csv.DictReader(file, dialect="excel-tab"))
    except FileNotFoundError as error:
        raise ScoringError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise ScoringError(f"{path} is a folder, not a file") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ScoringError(f"{path} is cut off or not a TSV: {error}") from error
    if not rows:
        raise ScoringError(f"{path} holds no questions")
    return _with_images(path, rows)


def _whole_rows(path: str | Path, reader: csv.DictReader) -> list[tuple[int, Row]]:
    """Line numbers and rows."""
    columns = reader.fieldnames or []
    absent = [name for name in NEEDED if name not in columns]
    if absent:
        # The first line of a file of another kind is one name of any length.
        found = some(f"{name:.40}" for name in columns) or "none"
        raise ScoringError(f"{path} has no column {', '.join(absent)}; is it an MMBench TSV? It has {found}")
    rows, short = [], []
    for row in reader:
        if None in row or None in row.values():
            found = sum(value is not None for name, value in row.items() if name is not None)
            short.append(f"line {reader.line_num} ({found} of {len(columns)} cells)")
            continue
        if not row["index"].strip().isdigit():
            raise ScoringError(f"{path}, line {reader.line_num}: the index {row['index'][:40]!r} is not a number")
        if len(options_of(row)) < 2:
            raise ScoringError(f"{path}, line {reader.line_num}: question {row['index']} has fewer than two options")
        rows.append((reader.line_num, row))
    if short:
        cut_off = f"{len(short)} rows have not one cell for each column: {some(short)}"
        raise ScoringError(f"{path}: {cut_off}; the file is cut off, download it again")
    return rows


def _with_images(path: str | Path, rows: Sequence[tuple[int, Row]]) -> list[Row]:
    images = {row["index"]: row["image"].strip() for _, row in rows}
    if len(images) < len(rows):
        raise ScoringError(f"{path} holds {len(rows) - len(images)} indexes twice")
    problems: dict[str, str | None] = {}
    whole, broken = [], []
    for line, row in rows:
        image = images[row["index"]]
        if len(image) < SHORTEST_IMAGE and image in images:
            image = images[image]
        if image not in problems:
            problems[image] = image_problem(image)
        if problems[image]:
            broken.append(f"line {line} (index {row['index']}: {problems[image]})")
        whole.append({**row, "image": image})
    if broken:
        cells = f"{len(broken)} image cells hold no whole image: {some(broken)}"
        raise ScoringError(f"{path}: {cells}; download the file again")
    return whole


def image_problem(data: str) -> str | None:
    """What is wrong with an image cell, without decoding its pixels; None for a whole one."""
    try:
        raw = base64.b64decode(data, validate=True)
        with Image.open(io.BytesIO(raw)) as image:
            kind = image.format
            image.verify()
    except (OSError, SyntaxError, ValueError) as error:
        return str(error) or type(error).__name__
    # verify() checks all of a PNG, but only the head of a JPEG.
    if kind == "JPEG" and b"\xff\xd9" not in raw[-64:]:
        return "the JPEG is cut off"
    return None


def question_of(index: str | int) -> int:
    """The index of the question that a row is a rotation of."""
    return int(index) % ROTATION
