"""OCR-VQA: dataset.json and the covers that its script downloads."""

from pathlib import Path

from llava.eval.eval_ocrvqa import pairs_of
from llava.eval.prepare.common import SHORT, Options, check_published, find, load, set_up, with_images

SUFFIXES = (".jpg", ".png", ".gif", ".jpeg")


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl of the test split; ids are BOOK_NUMBER."""
    source = find(raw, "dataset.json")
    images = find(raw, "images")
    books = load(source)
    pairs = pairs_of(books, "test")
    check_published("ocrvqa", len(books), options)
    names = {book: image_name(book, books[book].get("imageURL", ""), images) for book, _, _ in pairs.values()}
    rows = [
        {"question_id": key, "image": names[book], "text": f"{question}\n{SHORT}", "category": "default"}
        for key, (book, question, _) in pairs.items()
    ]
    rows = with_images(rows, images, options)
    set_up(out, {"dataset.json": source, "images": images}, "questions.jsonl", rows, options)
    return len(rows)


def image_name(book: str, url: str, images: Path) -> str:
    """The cover's file: named by the book, with the ending of its address; some tools save all as .jpg."""
    endings = dict.fromkeys([Path(url).suffix or SUFFIXES[0], *SUFFIXES])
    names = [book + ending for ending in endings]
    return next((name for name in names if (images / name).is_file()), names[0])
