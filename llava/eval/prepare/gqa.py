"""GQA: questions1.2.zip and images.zip to upstream's question file."""

from pathlib import Path

from llava.eval.prepare.common import (
    SHORT,
    Options,
    PrepareError,
    check_published,
    find,
    load,
    set_up,
    with_images,
)


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes llava_gqa_testdev_balanced.jsonl; returns the number of questions asked."""
    source = find(raw, "testdev_balanced_questions.json", "data/testdev_balanced_questions.json")
    images = find(raw, "images", "data/images")
    questions = load(source)
    try:
        rows = [
            {
                "question_id": qid,
                "image": f"{entry['imageId']}.jpg",
                "text": f"{entry['question']}\n{SHORT}",
                "category": "default",
            }
            for qid, entry in questions.items()
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise PrepareError(f"{source} is not GQA's file of questions ({error!r})") from error
    check_published("gqa", len(rows), options)
    rows = with_images(rows, images, options)
    set_up(
        out,
        {"data/testdev_balanced_questions.json": source, "data/images": images},
        "llava_gqa_testdev_balanced.jsonl",
        rows,
        options,
    )
    return len(rows)
