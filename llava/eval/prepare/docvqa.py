"""DocVQA (task 1): the validation questions and the page images."""

from pathlib import Path

from llava.eval.eval_docvqa import entries_of
from llava.eval.prepare.common import SHORT, Options, check_published, find, load, set_up, with_images

FILES = ("val_v1.0_withQT.json", "val_v1.0.json")


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl of the validation split."""
    folders = ("", "val/", "spdocvqa_qas/")
    source = find(raw, *(folder + name for name in FILES for folder in folders))
    images = find(raw, "documents", "spdocvqa_images", "val/documents")
    entries = entries_of(load(source))
    check_published("docvqa", len(entries), options)
    rows = [
        {
            "question_id": entry["questionId"],
            "image": Path(entry["image"]).name,
            "text": f"{entry['question']}\n{SHORT}",
            "category": "default",
        }
        for entry in entries.values()
    ]
    rows = with_images(rows, images, options)
    set_up(out, {"val_v1.0_withQT.json": source, "documents": images}, "questions.jsonl", rows, options)
    return len(rows)
