"""The mixture of tasks of the embedded default: exact match, and IoU for places. It is not one of the paper's."""

from collections.abc import Mapping
from typing import Any

from llava.eval.benchmarks.base import Benchmark
from llava.eval.benchmarks.refcocog import overlap
from llava.eval.scoring.boxes import FRAMES, parse_box
from llava.eval.scoring.pairing import Answers, Reply, ScoringError, pair
from llava.eval.scoring.report import Measure, Report, by_group, group, mean_of_group_means
from llava.eval.scoring.rules import normalise


def score(answers: Answers, annotations: Mapping[str, Mapping[str, Any]], **pairing: Any) -> Report:
    """The mean over questions ("score"), and over tasks; the parts of the report are the tasks.

    A question counts 1 if the reply equals the answer, or the IoU of its box with the true one.

    Args:
        annotations: question id -> `task`, and `answer`, or `bbox` `[x, y, width, height]` in pixels with the picture's
            `width` and `height`.
    """
    if not isinstance(annotations, Mapping) or not all(map(is_truth, annotations.values())):
        raise ScoringError(
            "the annotations are not those that `python -m playground.embedded.prepare --mixture` writes"
        )
    paired = pair(answers, annotations, **pairing)
    scores = [score_of(reply) for reply in paired.replies]
    tasks = [reply.truth["task"] for reply in paired.replies]
    metrics = {"score": Measure.of(scores), "task_mean": mean_of_group_means(by_group(tasks, scores))}
    report = Report.of("mixture", paired, scores, metrics, groups={"task": group(tasks, scores)})
    report.parts = by_group(tasks, [reply.key for reply in paired.replies])
    report.parse_failures += sum(
        bool((reply.text or "").strip()) and "bbox" in reply.truth and parse_box(reply.text) is None
        for reply in paired.replies
    )
    report.details = {"rule": "exact match; places: IoU", "frame": {"boxes_are_shares_of": FRAMES[0]}}
    return report


def is_truth(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("task"), str):
        return False
    box = entry.get("bbox")
    placed = isinstance(box, list | tuple) and len(box) == 4 and {"width", "height"} <= entry.keys()
    return placed or isinstance(entry.get("answer"), str)


def score_of(reply: Reply) -> float:
    if "bbox" in reply.truth:
        return overlap(reply, FRAMES[0])
    return float(reply.text is not None and normalise(reply.text) == reply.truth["answer"])


MIXTURE = Benchmark(
    name="mixture",
    column="mixture",
    annotations=("annotations.json",),
    score=score,
    visual=False,
    paper=False,
    images="./playground/data/mixture/images",
    answer_flags=("--max_new_tokens", "24"),
    answers="answers/{stem}/{name}.jsonl",
    annotation_help="annotations.json: question id -> task and answer",
)
