"""Small MMBench files in the official format."""

import base64
import csv
import io

from PIL import Image

COLUMNS = [
    "index",
    "question",
    "hint",
    "A",
    "B",
    "C",
    "D",
    "answer",
    "category",
    "image",
    "source",
    "l2-category",
    "comment",
    "split",
]


def picture(colour, size=(12, 9), mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def row(index, answer, options=("a car", "a bus", "a boat", "a bicycle"), **more):
    cells = dict(zip("ABCD", [*options, *[""] * 4], strict=False))
    return {
        "index": str(index),
        "question": f"What is shown in {int(index) % 1_000_000}?",
        "hint": "",
        "answer": answer,
        "category": "object_localization",
        "image": picture(int(index) % 200),
        "source": "made",
        "l2-category": "perception",
        "comment": "",
        "split": "dev",
    } | {**cells, **more}


def rotations(index, answer, options=("a car", "a bus", "a boat", "a bicycle"), **more):
    """The rows that the dev file has for one question: options turned by one each, the answer's letter with them."""
    texts, letters = list(options), "ABCD"[: len(options)]
    right = texts["ABCD".index(answer)]
    turned = [texts[k:] + texts[:k] for k in range(len(texts))]
    return [row(index + k * 1_000_000, letters[t.index(right)], t, **more) for k, t in enumerate(turned)]


def write_tsv(path, rows, columns=COLUMNS):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path
