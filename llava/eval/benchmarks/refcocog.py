"""RefCOCOg, test (UMD split): mean IoU (the paper's number) and accuracy at IoU 0.5."""

import argparse
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmarks.base import Benchmark, Published, Setting
from llava.eval.benchmarks.preparing import Options, PrepareError, check_count, find, question, set_up
from llava.eval.scoring.boxes import FRAMES, frame_of, parse_box, to_pixels
from llava.eval.scoring.pairing import Answers, Reply, ScoringError, expecting, pair, read_json
from llava.eval.scoring.report import Measure, Report
from llava.eval.scoring.rules import iou

ANNOTATIONS, IMAGES = "annotations.json", "train2014"
PUBLISHED = Published(9602, "expressions")
SPLIT = "test"
# As LLaVA-1.5's training data asks for a box.
TEMPLATE = "Please provide the bounding box coordinate of the region this sentence describes: {}."
HIT = 0.5


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl and annotations.json from REFER's files and COCO's train2014 images."""
    names = ("refs(umd).p", "refcocog/refs(umd).p", "refs(umd).json", "refcocog/refs(umd).json")
    refs_file, instances_file = find(raw, *names), find(raw, "instances.json", "refcocog/instances.json")
    images = find(raw, IMAGES, f"images/{IMAGES}", f"images/mscoco/images/{IMAGES}")
    refs = read_json(refs_file) if refs_file.suffix == ".json" else load_plain_pickle(refs_file)
    template = options.template or TEMPLATE
    if "{}" not in template:
        raise PrepareError(f"--template {template!r} has no {{}} for the expression")
    entries = expressions(refs, read_json(instances_file), SPLIT)
    check_count(PUBLISHED, len(entries), options)
    if len({str(entry["question_id"]) for entry in entries}) < len(entries):
        raise PrepareError(f"{refs_file}: an expression's id occurs twice")
    rows = [question(e["question_id"], e["image"], template.replace("{}", e["sentence"])) for e in entries]
    others = {ANNOTATIONS: {"split": SPLIT, "split_by": "umd", "data": entries}}
    return set_up(out, {IMAGES: images}, "questions.jsonl", rows, options, images, others=others)


def expressions(refs: Sequence[Mapping[str, Any]], instances: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """The expressions of a split; `bbox` is [x, y, width, height] in pixels."""
    with expecting("refs and instances are not RefCOCOg's, or not of one download"):
        images = {image["id"]: image for image in instances["images"]}
        boxes = {annotation["id"]: annotation["bbox"] for annotation in instances["annotations"]}
        found = [
            {
                "question_id": sentence["sent_id"],
                "ref_id": ref["ref_id"],
                "sentence": sentence["sent"],
                "image": image["file_name"],
                "width": image["width"],
                "height": image["height"],
                "bbox": list(boxes[ref["ann_id"]]),
            }
            for ref in refs
            if ref["split"] == split
            for image in [images[ref["image_id"]]]
            for sentence in ref["sentences"]
        ]
        splits = sorted({str(ref["split"]) for ref in refs})
    if not found:
        raise PrepareError(f"no expression of split {split}; the file has {', '.join(splits) or 'none'}")
    return found


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not plain data")


def load_plain_pickle(path: Path) -> Any:
    """The content of a pickle, also one of Python 2; a pickle that names a class or function is refused."""
    try:
        with open(path, "rb") as file:
            return _PlainUnpickler(file, encoding="utf-8").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise PrepareError(f"{path} cannot be read: {error or 'it is cut off'}") from error


def score(answers: Answers, annotations: Mapping[str, Any], frame: str, because: str = "", **pairing: Any) -> Report:
    """Mean IoU and accuracy at 0.5 over expressions; a reply without a box is a miss.

    Args:
        annotations: `data` holds what `expressions` returns.
        frame: what the replies' boxes are shares of, one of `FRAMES`; `because`: how it is known.
    """
    with expecting("not the annotations that `llava.eval.prepare refcocog` writes"):
        truths = {str(entry["question_id"]): entry for entry in annotations["data"]}
        for entry in truths.values():
            (_, _, _, _), _, _ = entry["bbox"], entry["width"], entry["height"]
    paired = pair(answers, truths, **pairing)
    overlaps = [overlap(reply, frame) for reply in paired.replies]
    boxes = [parse_box(line["text"]) for line in answers]
    beyond = sum(box is not None and not all(-0.01 <= x <= 1.01 for x in box) for box in boxes)
    hits = [float(value >= HIT) for value in overlaps]
    metrics = {"mean_iou": Measure.of(overlaps), "accuracy_at_0.5": Measure.of(hits)}
    known = {"because": because} if because else {}
    details = {"frame": {"boxes_are_shares_of": frame, **known}, "boxes_beyond_the_image": beyond}
    details |= {name: annotations[name] for name in ("split", "split_by") if name in annotations}
    failures = sum(box is None for box in boxes)
    report = Report.of("refcocog", paired, overlaps, metrics, details=details, parse_failures=failures)
    if beyond:
        clipped = f"{beyond} boxes reach beyond 0..1 and were clipped"
        report.warnings.append(f"{clipped}: does the model write another scale?")
    return report


def overlap(reply: Reply, frame: str) -> float:
    """IoU of a reply's box with the true one, in pixels; 0 if there is none."""
    box = parse_box(reply.text or "")
    if box is None:
        return 0.0
    x, y, width, height = reply.truth["bbox"]
    return iou(to_pixels(box, reply.truth["width"], reply.truth["height"], frame), (x, y, x + width, y + height))


def add_score_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-path", help="the checkpoint that answered; its config says the frame")
    parser.add_argument("--model-base", help="its base, if the recorded one is not the one to use")
    parser.add_argument("--frame", choices=FRAMES, help="what boxes are shares of; default: as the checkpoint says")


def options(args: argparse.Namespace) -> dict[str, str]:
    if args.frame:
        frame, why = args.frame, "given as --frame"
    elif args.model_path:
        # torch is loaded only if a checkpoint must be asked.
        from llava.checkpoint.folder import open_checkpoint

        try:
            frame, why = frame_of(open_checkpoint(args.model_path, args.model_base, weights=False).config)
        except ValueError as error:
            raise ScoringError(f"{error}; or give --frame") from error
    else:
        raise ScoringError("give --model-path, whose config says the frame of its boxes, or --frame padded|original")
    print(f"boxes are shares of the {frame} image: {why}")
    return {"frame": frame, "because": why}


REFCOCOG = Benchmark(
    name="refcocog",
    column="RefCOCOg",
    annotations=(ANNOTATIONS,),
    prepare=prepare,
    score=score,
    images="{data}/train2014",
    answer_flags=("--max_new_tokens", "64"),
    score_flags=(
        *("--annotation-file", "{data}/annotations.json", "--question-file", "{questions}"),
        *("--model-path", "{checkpoint}"),
    ),
    settings=(
        Setting("FRAME", "what boxes are shares of: padded or original (default: the checkpoint's)", "", "--frame"),
    ),
    published=PUBLISHED,
    count=lambda annotations, args: len(annotations["data"]),
    annotation_help="as `llava.eval.prepare refcocog` writes it",
    add_score_flags=add_score_flags,
    options=options,
)
