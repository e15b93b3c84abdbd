"""OCR-VQA, test: relaxed accuracy, and exact match, which is Qwen-VL's and VLMEvalKit's rule for this set.

The paper's rule is not published. It names Qwen-VL's and a margin of error, which relaxed accuracy has.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llava.data.json_items import json_members
from llava.eval.benchmarks.base import Benchmark, Published
from llava.eval.benchmarks.parquet import Split, find_split, unpack, write_made
from llava.eval.benchmarks.preparing import SHORT, Options, check_count, find, question, set_up
from llava.eval.benchmarks.training import Sample, Source, Training, parquet_samples
from llava.eval.scoring.pairing import Answers, ScoringError, expecting, read_json
from llava.eval.scoring.report import Report
from llava.eval.scoring.rules import exact, relaxed_correctness
from llava.eval.scoring.short_answers import UNPUBLISHED, score_short_answers

ANNOTATIONS, IMAGES = "dataset.json", "images"
# One book is one cover. The Hub's copy has those of the test split whose cover was found.
PUBLISHED = Published(207572, "books", also=(20796,))
HUB = ("image_id", "questions", "answers", "title", "authorName", "genre", "image_url")
"""Columns of howard-hou/OCR-VQA."""
HUB_BOOKS = {name: Published(count, "books") for name, count in (("train", 166022), ("val", 20731), ("test", 20796))}
SPLITS = {"train": 1, "val": 2, "test": 3}
RULES = {"relaxed": relaxed_correctness, "exact": exact}
SUFFIXES = (".jpg", ".png", ".gif", ".jpeg")


def pairs_of(books: Mapping[str, Any], split: str) -> dict[str, tuple[str, str, str]]:
    """Question id (BOOK_NUMBER) -> book, question, answer, of a split of the official file."""
    pairs = {}
    with expecting("the annotations are not OCR-VQA's dataset.json"):
        for book, entry in books.items():
            if entry["split"] == SPLITS[split]:
                for number, texts in enumerate(zip(entry["questions"], entry["answers"], strict=True)):
                    pairs[f"{book}_{number}"] = (book, *map(str, texts))
    if not pairs:
        found = ", ".join(sorted({str(entry["split"]) for entry in books.values()}))
        raise ScoringError(f"the annotations have no question of split {split} ({SPLITS[split]}); they have {found}")
    return pairs


def from_hub(split: Split, out: Path, options: Options) -> Path:
    """Writes dataset.json and the covers from the Hub's howard-hou/OCR-VQA; returns their folder."""
    check_count(PUBLISHED, len(split), options)
    rows = unpack(split, HUB, out / IMAGES, lambda _, row: f"{row['image_id']}{SUFFIXES[0]}")
    of_test = {"split": SPLITS["test"]}
    books = {row.pop("image_id"): row | {"imageURL": row["image_url"]} | of_test for row in rows}
    write_made(out / ANNOTATIONS, json.dumps(books), options)
    return out


def prepare(raw: Path, out: Path, options: Options) -> int:
    if hub := find_split(raw, "test"):
        raw = from_hub(hub, out, options)
    source, images = find(raw, ANNOTATIONS), find(raw, IMAGES)
    books = read_json(source)
    pairs = pairs_of(books, "test")
    check_count(PUBLISHED, len(books), options)
    names = {book: image_name(book, books[book].get("imageURL", ""), images) for book, _, _ in pairs.values()}
    rows = [question(key, names[book], f"{text}\n{SHORT}") for key, (book, text, _) in pairs.items()]
    return set_up(out, {ANNOTATIONS: source, IMAGES: images}, "questions.jsonl", rows, options, images)


def image_name(book: str, url: str, images: Path) -> str:
    """The cover's file: named by the book, with the ending of its address; some tools save all as .jpg."""
    endings = dict.fromkeys([Path(url).suffix or SUFFIXES[0], *SUFFIXES])
    names = [book + ending for ending in endings]
    return next((name for name in names if (images / name).is_file()), names[0])


def open_split(raw: Path, out: Path, split: str, options: Options) -> Source | None:
    """A split of the official file, or of the Hub's; a book has several questions."""
    if hub := find_split(raw, {"val": "validation"}.get(split, split)):
        check_count(HUB_BOOKS[split], len(hub), options)
        columns = ("image_id", "questions", "answers")

        def of_row(number: int, row: dict[str, Any]) -> Iterator[Sample]:
            return _samples(row["image_id"], row, f"{row['image_id']}{SUFFIXES[0]}")

        return Source(out / IMAGES, lambda i: parquet_samples(hub, columns, i, of_row), in_parquet=True)
    source = raw / ANNOTATIONS
    if not source.is_file():
        return None
    images = find(raw, IMAGES)

    def samples(_: bool) -> Iterator[Sample]:
        with expecting(f"{source} is not OCR-VQA's dataset.json"), open(source, encoding="utf-8") as file:
            for book, entry in json_members(file):
                if entry["split"] == SPLITS[split]:
                    yield from _samples(book, entry, image_name(book, entry.get("imageURL", ""), images))

    return Source(images, samples)


def _samples(book: str, entry: Mapping[str, Any], image: str) -> Iterator[Sample]:
    for number, (text, answer) in enumerate(zip(entry["questions"], entry["answers"], strict=True)):
        yield Sample(f"{book}_{number}", image, f"{text}\n{SHORT}", str(answer), entry.get("content"))


def score(answers: Answers, books: Mapping[str, Any], split: str = "test", **pairing: Any) -> Report:
    """Relaxed and exact accuracy. `books` is the content of dataset.json."""
    references = {key: [answer] for key, (_, _, answer) in pairs_of(books, split).items()}
    details = {"split": split, "rule": "5% of the reference, case-blind", "paper": UNPUBLISHED}
    return score_short_answers("ocrvqa", answers, references, RULES, details=details, **pairing)


OCRVQA = Benchmark(
    name="ocrvqa",
    column="OCRVQA",
    annotations=(ANNOTATIONS,),
    prepare=prepare,
    score=score,
    images="{data}/images",
    answer_flags=("--max_new_tokens", "100"),
    published=PUBLISHED,
    annotation_help="dataset.json",
    add_score_flags=lambda parser: parser.add_argument("--split", choices=SPLITS, default="test"),
    options=lambda args: {"split": args.split},
)
OCRVQA_TRAINING = Training(open_split, tuple(SPLITS), "test", (ANNOTATIONS,))
