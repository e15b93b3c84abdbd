"""Scores boxes for RefCOCOg's expressions: mean IoU (the paper's number) and accuracy at IoU 0.5.

`python -m llava.eval.eval_refcocog --annotation-file A --result-file answers.jsonl --model-path CHECKPOINT`

The annotations are those that `llava.eval.prepare refcocog` writes. The checkpoint's config says in which frame it
writes boxes; --frame overrides it. The report says which was used, and why.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llava.checkpoint.old_folder import CheckpointError, read_checkpoint
from llava.eval.benchmarks.published import not_as_published
from llava.eval.scoring.boxes import FRAMES, frame_of, parse_box, to_pixels
from llava.eval.scoring.pairing import (
    Reply,
    ScoringError,
    asked_ids,
    model_of,
    pair,
    read_answers,
    read_json,
    run_scorer,
    scorer_parser,
)
from llava.eval.scoring.report import Measure, Report, report_path
from llava.eval.scoring.rules import iou

HIT = 0.5


def score(
    answers: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, Any],
    frame: str,
    asked: Sequence[str] | None = None,
    missing: str = "error",
) -> Report:
    """Mean IoU and accuracy at 0.5 over expressions; a reply without a box is a miss.

    Args:
        annotations: `data`: entries with `question_id`, `bbox` [x, y, width, height] in pixels, and the image's `width`
            and `height`.
        frame: what the replies' boxes are shares of: `padded` or `original`.
    """
    try:
        truths = {str(entry["question_id"]): entry for entry in annotations["data"]}
        for entry in truths.values():
            _, _, _, _ = entry["bbox"]
            _ = entry["width"], entry["height"]
    except (KeyError, TypeError, ValueError) as error:
        raise ScoringError(f"not the annotations that `llava.eval.prepare refcocog` writes ({error!r})") from error
    paired = pair(answers, truths, asked=asked, missing=missing)
    overlaps = [overlap(reply, frame) for reply in paired.replies]
    boxes = [parse_box(line["text"]) for line in answers]
    beyond = sum(box is not None and not all(-0.01 <= x <= 1.01 for x in box) for box in boxes)
    warnings = list(paired.warnings)
    if beyond:
        warnings.append(f"{beyond} boxes reach beyond 0..1 and were clipped: does the model write another scale?")
    return Report(
        benchmark="refcocog",
        metric="mean_iou",
        metrics={
            "mean_iou": Measure.of(overlaps),
            "accuracy_at_0.5": Measure.of([float(value >= HIT) for value in overlaps]),
        },
        answers=len(answers),
        parse_failures=sum(box is None for box in boxes),
        per_question={reply.key: value for reply, value in zip(paired.replies, overlaps, strict=True)},
        details={"frame": {"boxes_are_shares_of": frame}, "boxes_beyond_the_image": beyond}
        | {name: annotations[name] for name in ("split", "split_by") if name in annotations},
        warnings=warnings,
        model=model_of(answers),
    )


def overlap(reply: Reply, frame: str) -> float:
    """IoU of a reply's box with the true one, in pixels; 0 where there is none."""
    box = None if reply.text is None else parse_box(reply.text)
    if box is None:
        return 0.0
    x, y, width, height = reply.truth["bbox"]
    return iou(to_pixels(box, reply.truth["width"], reply.truth["height"], frame), (x, y, x + width, y + height))


def main() -> None:
    parser = scorer_parser(__doc__)
    parser.add_argument("--annotation-file", required=True, help="as `llava.eval.prepare refcocog` writes it")
    parser.add_argument("--model-path", help="the checkpoint that answered; its config says the frame")
    parser.add_argument("--frame", choices=FRAMES, help="what boxes are shares of; default: as the checkpoint says")
    args = parser.parse_args()
    if not args.frame and not args.model_path:
        raise ScoringError("give --model-path, whose config says the frame of its boxes, or --frame padded|original")
    frame, why = args.frame, "given as --frame"
    if not frame:
        try:
            frame, why = frame_of(read_checkpoint(args.model_path).config)
        except CheckpointError as error:
            raise ScoringError(f"{error}; or give --frame") from error
    annotations, asked = read_json(args.annotation_file), asked_ids(args.question_file)
    report = score(read_answers(args.result_file), annotations, frame, asked, args.missing)
    report.details["frame"]["because"] = why
    print(f"boxes are shares of the {frame} image: {why}")
    report.warnings += not_as_published("refcocog", len(annotations["data"]))
    report.publish(report_path(args.report_file, args.result_file))


if __name__ == "__main__":
    run_scorer(main)
