"""RefCOCOg, test (UMD split): mean IoU (the paper's number) and accuracy at IoU 0.5."""

import argparse
import io
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llava.eval.benchmarks.base import Benchmark, Published, Setting
from llava.eval.benchmarks.parquet import Split, find_split, unpack, write_made
from llava.eval.benchmarks.preparing import Options, PrepareError, check_count, find, place, question, set_up
from llava.eval.benchmarks.training import Sample, Source, Training, items, parquet_samples
from llava.eval.scoring.boxes import FRAMES, box_text, parse_box, to_pixels
from llava.eval.scoring.pairing import Answers, Reply, expecting, pair, read_json
from llava.eval.scoring.report import Measure, Report
from llava.eval.scoring.rules import iou
from llava.images import image_size, open_image

ANNOTATIONS, IMAGES = "annotations.json", "train2014"
REFS, INSTANCES = "refs(umd).json", "instances.json"
PLACES = (IMAGES, f"images/{IMAGES}", f"images/mscoco/images/{IMAGES}")
REFS_PLACES = ("refs(umd).p", "refcocog/refs(umd).p", REFS, f"refcocog/{REFS}")
INSTANCES_PLACES = (INSTANCES, f"refcocog/{INSTANCES}")
PUBLISHED = Published(9602, "expressions")
SPLITS = {"train": Published(80512, "expressions"), "val": Published(4896, "expressions"), "test": PUBLISHED}
OBJECTS = Published(5023, "objects")
SPLIT = "test"
# As LLaVA-1.5's training data asks for a box.
TEMPLATE = "Please provide the bounding box coordinate of the region this sentence describes: {}."
HIT = 0.5
HUB = ("question_id", "answer", "bbox", "file_name")
"""Columns of lmms-lab/RefCOCOg, which has the images."""
HUB_REFS = ("ref_id", "ann_id", "image_id", "split", "sentences", "raw_anns", "raw_image_info")
"""Columns of jxu124/refcocog, which has the rows of REFER's files, some as JSON."""


def from_hub(split: Split, raw: Path, out: Path, options: Options) -> Path:
    """Writes REFER's files from a copy on the Hub, and the images or a link to them; returns their folder."""
    check_count(OBJECTS, len(split), options)
    if "raw_anns" in split.columns:
        place(find(raw, *PLACES), out / IMAGES)
        refs = list(split.rows(*HUB_REFS))
        with expecting(f"{split.files[0].parent}: raw_anns or raw_image_info is not JSON"):
            images = [json.loads(ref.pop("raw_image_info")) for ref in refs]
            annotations = [json.loads(ref.pop("raw_anns")) for ref in refs]
    else:
        rows = unpack(split, HUB, out / IMAGES, lambda _, row: _image_of(row))
        refs, images, annotations = [], [], []
        for row in rows:
            name, key = row["image"], row["question_id"]
            image = open_image(out / IMAGES / name, f"object {key}")
            images.append({"id": name, "file_name": name, "width": image.width, "height": image.height})
            annotations.append({"id": key, "bbox": row["bbox"]})
            sentences = [{"sent_id": f"{key}_{i}", "sent": text} for i, text in enumerate(row["answer"])]
            refs.append({"ref_id": key, "ann_id": key, "image_id": name, "split": SPLIT, "sentences": sentences})
    write_made(out / REFS, json.dumps(refs), options)
    write_made(out / INSTANCES, json.dumps({"images": images, "annotations": annotations}), options)
    return out


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl and annotations.json from REFER's files and COCO's train2014 images."""
    if hub := find_split(raw, SPLIT):
        raw = from_hub(hub, raw, out, options)
    refs_file, instances_file = find(raw, *REFS_PLACES), find(raw, *INSTANCES_PLACES)
    images = find(raw, *PLACES)
    template = template_of(options)
    entries = expressions(_read_refs(refs_file), read_json(instances_file), SPLIT)
    check_count(PUBLISHED, len(entries), options)
    if len({str(entry["question_id"]) for entry in entries}) < len(entries):
        raise PrepareError(f"{refs_file}: an expression's id occurs twice")
    rows = [question(e["question_id"], e["image"], template.replace("{}", e["sentence"])) for e in entries]
    others = {ANNOTATIONS: {"split": SPLIT, "split_by": "umd", "data": entries}}
    return set_up(out, {IMAGES: images}, "questions.jsonl", rows, options, images, others=others)


def open_split(raw: Path, out: Path, split: str, options: Options) -> Source | None:
    """A split of REFER's files or of a copy on the Hub, with the boxes that LLaVA's training data has (`box_text`)."""
    template = template_of(options)

    def of_ref(ref: Mapping[str, Any], image: Mapping[str, Any], bbox: Sequence[float]) -> Iterator[Sample]:
        x, y, width, height = bbox
        answer = box_text((x, y, x + width, y + height), image["width"], image["height"])
        for sentence in ref["sentences"]:
            text = template.replace("{}", sentence["sent"])
            yield Sample(str(sentence["sent_id"]), image["file_name"], text, answer, image.get("content"))

    def of_row(number: int, row: dict[str, Any]) -> Iterator[Sample]:
        if "raw_anns" in row:
            return of_ref(row, json.loads(row["raw_image_info"]), json.loads(row["raw_anns"])["bbox"])
        name = _image_of(row)
        width, height = image_size(io.BytesIO(row["content"]), name)
        image = {"file_name": name, "content": row["content"], "width": width, "height": height}
        sentences = [{"sent_id": f"{row['question_id']}_{i}", "sent": text} for i, text in enumerate(row["answer"])]
        return of_ref({"sentences": sentences}, image, row["bbox"])

    if hub := find_split(raw, {"val": "validation"}.get(split, split)) or find_split(raw, split):
        if "raw_anns" in hub.columns:
            samples = partial(parquet_samples, hub, HUB_REFS, False, of_row)
            return Source(find(raw, *PLACES), lambda _: samples(), SPLITS[split])
        # A box in shares needs the image's size.
        samples = partial(parquet_samples, hub, HUB, True, of_row)
        return Source(out / IMAGES, lambda _: samples(), None, in_parquet=True)
    file = next((raw / name for name in REFS_PLACES if (raw / name).is_file()), None)
    if file is None:
        return None
    refs, instances = _read_refs(file), find(raw, *INSTANCES_PLACES)
    what = "REFER's file of images and boxes"

    def of_file() -> Iterator[Sample]:
        with expecting("refs and instances are not RefCOCOg's, or not of one download"):
            images = {image["id"]: image for image in items(instances, "images", what)}
            boxes = {entry["id"]: entry["bbox"] for entry in items(instances, "annotations", what)}
            for ref in refs:
                if ref["split"] == split:
                    yield from of_ref(ref, images[ref["image_id"]], boxes[ref["ann_id"]])

    return Source(find(raw, *PLACES), lambda _: of_file(), SPLITS[split])


def template_of(options: Options) -> str:
    """The prompt, with {} for the expression."""
    template = options.template or TEMPLATE
    if "{}" not in template:
        raise PrepareError(f"--template {template!r} has no {{}} for the expression")
    return template


def _image_of(row: Mapping[str, Any]) -> str:
    """The image of a row of lmms-lab/RefCOCOg: the file's name is the image's, and the number of the object in it."""
    return f"{row['file_name'].rpartition('_')[0]}.jpg"


def _read_refs(file: Path) -> list[dict[str, Any]]:
    return read_json(file) if file.suffix == ".json" else load_plain_pickle(file)


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


def score(answers: Answers, annotations: Mapping[str, Any], frame: str = FRAMES[0], **pairing: Any) -> Report:
    """Mean IoU and accuracy at 0.5 over expressions, in both frames; a reply without a box is a miss.

    Args:
        annotations: `data` holds what `expressions` returns.
        frame: what the replies' boxes are shares of, one of `FRAMES`; the headline is in this frame.
    """
    with expecting("not the annotations that `llava.eval.prepare refcocog` writes"):
        truths = {str(entry["question_id"]): entry for entry in annotations["data"]}
        for entry in truths.values():
            (_, _, _, _), _, _ = entry["bbox"], entry["width"], entry["height"]
    paired = pair(answers, truths, **pairing)
    (other,) = set(FRAMES) - {frame}
    overlaps, in_other = ([overlap(reply, name) for reply in paired.replies] for name in (frame, other))
    boxes = [parse_box(line["text"]) for line in answers]
    beyond = sum(box is not None and not all(-0.01 <= x <= 1.01 for x in box) for box in boxes)
    metrics = {
        f"{name}{suffix}": Measure.of(values)
        for suffix, found in (("", overlaps), (f" ({other} frame)", in_other))
        for name, values in (("mean_iou", found), ("accuracy_at_0.5", [float(value >= HIT) for value in found]))
    }
    details = {"frame": {"boxes_are_shares_of": frame}, "boxes_beyond_the_image": beyond}
    details |= {name: annotations[name] for name in ("split", "split_by") if name in annotations}
    failures = sum(box is None for box in boxes)
    report = Report.of("refcocog", paired, overlaps, metrics, details=details, parse_failures=failures)
    if beyond:
        clipped = f"{beyond} boxes reach beyond 0..1 and were clipped"
        report.warnings.append(f"{clipped}: does the model write another scale?")
    gain = Measure.of([theirs - ours for ours, theirs in zip(overlaps, in_other, strict=True)])
    if gain.low is not None and gain.low > 0:
        higher = f"the mean IoU is {100 * gain.value:.2f} points higher as shares of the {other} image"
        report.warnings.append(f"{higher}; --frame {other} (FRAME={other}) gives that score")
    return report


def overlap(reply: Reply, frame: str) -> float:
    """IoU of a reply's box with the true one, in pixels; 0 if there is none."""
    box = parse_box(reply.text or "")
    if box is None:
        return 0.0
    x, y, width, height = reply.truth["bbox"]
    return iou(to_pixels(box, reply.truth["width"], reply.truth["height"], frame), (x, y, x + width, y + height))


def add_score_flags(parser: argparse.ArgumentParser) -> None:
    what = "what the boxes are shares of: the image padded to a square, or the original image; default: %(default)s"
    parser.add_argument("--frame", choices=FRAMES, default=FRAMES[0], help=what)


REFCOCOG = Benchmark(
    name="refcocog",
    column="RefCOCOg",
    annotations=(ANNOTATIONS,),
    prepare=prepare,
    score=score,
    rule="both frames",
    images="{data}/train2014",
    answer_flags=("--max_new_tokens", "64"),
    settings=(Setting("FRAME", "what boxes are shares of: padded (default) or original", "", "--frame"),),
    published=PUBLISHED,
    count=lambda annotations, args: len(annotations["data"]),
    annotation_help="as `llava.eval.prepare refcocog` writes it",
    add_score_flags=add_score_flags,
    options=lambda args: {"frame": args.frame},
)
REFCOCOG_TRAINING = Training(open_split, tuple(SPLITS), "test", REFS_PLACES)
