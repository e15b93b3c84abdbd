"""TDIUC: questions, annotations and images of its validation split."""

from pathlib import Path

from llava.eval.eval_tdiuc import references
from llava.eval.prepare.common import (
    SHORT,
    Options,
    PrepareError,
    check_count,
    check_published,
    find,
    load,
    set_up,
    with_images,
)

ANNOTATIONS = "mscoco_val2014_annotations.json"
QUESTIONS = "OpenEnded_mscoco_val2014_questions.json"


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl of the validation split; --sample makes a set of a size that one can wait for."""
    source = find(raw, f"Questions/{QUESTIONS}", QUESTIONS)
    annotations = find(raw, f"Annotations/{ANNOTATIONS}", ANNOTATIONS)
    images = find(raw, "Images/val2014", "val2014")
    answered = references(load(annotations))
    try:
        rows = [
            {
                "question_id": entry["question_id"],
                "image": f"COCO_val2014_{str(entry['image_id']).zfill(12)}.jpg",
                "text": f"{entry['question']}\n{SHORT}",
                "category": answered[str(entry["question_id"])][0],
            }
            for entry in load(source)["questions"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise PrepareError(f"{source} is not TDIUC's file of questions, or lacks annotations ({error!r})") from error
    check_published("tdiuc", len(rows), options)
    check_count("annotations", len(answered), len(rows), options)
    rows = with_images(rows, images, options)
    set_up(out, {ANNOTATIONS: annotations, "val2014": images}, "questions.jsonl", rows, options)
    return len(rows)
