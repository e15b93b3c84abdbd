"""RefCOCOg (UMD split): REFER's refs(umd).p and instances.json, and COCO's train2014 images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.prepare.common import (
    Options,
    PrepareError,
    check_published,
    find,
    load,
    set_up,
    unique,
    with_images,
)
from llava.eval.prepare.plain_pickle import load_plain_pickle
from llava.files import write_json

SPLIT = "test"
# As LLaVA-1.5's training data asks for a box.
TEMPLATE = "Please provide the bounding box coordinate of the region this sentence describes: {}."


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl, one question an expression, and annotations.json, which the scorer reads."""
    refs_file = find(raw, "refs(umd).p", "refcocog/refs(umd).p", "refs(umd).json", "refcocog/refs(umd).json")
    instances_file = find(raw, "instances.json", "refcocog/instances.json")
    images = find(raw, "train2014", "images/train2014", "images/mscoco/images/train2014")
    refs = load(refs_file) if refs_file.suffix == ".json" else load_plain_pickle(refs_file)
    template = options.template or TEMPLATE
    if "{}" not in template:
        raise PrepareError(f"--template {template!r} has no {{}} for the expression")
    entries = expressions(refs, load(instances_file), SPLIT)
    check_published("refcocog", len(entries), options)
    unique((entry["question_id"] for entry in entries), "expression")
    rows = [
        {
            "question_id": entry["question_id"],
            "image": entry["image"],
            "text": template.replace("{}", entry["sentence"]),
            "category": "default",
        }
        for entry in entries
    ]
    rows = with_images(rows, images, options)
    set_up(out, {"train2014": images}, "questions.jsonl", rows, options)
    write_json(out / "annotations.json", {"split": SPLIT, "split_by": "umd", "data": entries})
    return len(rows)


def expressions(refs: Sequence[Mapping[str, Any]], instances: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """The expressions of a split: `question_id` (the sentence's), `sentence`, `image`, its `width` and `height`, and
    `bbox` [x, y, width, height], in pixels.

    Raises:
        PrepareError: no expression in the split, or files that do not belong together.
    """
    try:
        images = {image["id"]: image for image in instances["images"]}
        boxes = {annotation["id"]: annotation["bbox"] for annotation in instances["annotations"]}
        found = [
            {
                "question_id": sentence["sent_id"],
                "ref_id": ref["ref_id"],
                "sentence": sentence["sent"],
                "image": images[ref["image_id"]]["file_name"],
                "width": images[ref["image_id"]]["width"],
                "height": images[ref["image_id"]]["height"],
                "bbox": list(boxes[ref["ann_id"]]),
            }
            for ref in refs
            if ref["split"] == split
            for sentence in ref["sentences"]
        ]
        splits = sorted({str(ref["split"]) for ref in refs})
    except (KeyError, TypeError) as error:
        raise PrepareError(f"refs and instances are not RefCOCOg's, or not of one download ({error!r})") from error
    if not found:
        raise PrepareError(f"no expression of split {split}; the file has {', '.join(splits) or 'none'}")
    return found
