"""The mixture of tasks of the embedded default: exact match. It is not one of the paper's."""

from collections.abc import Mapping
from typing import Any

from llava.eval.benchmarks.base import Benchmark
from llava.eval.scoring.pairing import Answers, ScoringError, pair
from llava.eval.scoring.report import Measure, Report, by_group, group, mean_of_group_means
from llava.eval.scoring.rules import normalise


def score(answers: Answers, annotations: Mapping[str, Mapping[str, Any]], **pairing: Any) -> Report:
    """The mean over questions ("score"), and over tasks; the parts of the report are the tasks.

    A question counts 1 if the reply equals the answer.

    Args:
        annotations: question id -> `task` and `answer`.
    """
    if not isinstance(annotations, Mapping) or not all(map(is_truth, annotations.values())):
        raise ScoringError(
            "the annotations are not those that `python -m playground.embedded.prepare --mixture` writes"
        )
    paired = pair(answers, annotations, **pairing)
    scores = [
        float(reply.text is not None and normalise(reply.text) == reply.truth["answer"]) for reply in paired.replies
    ]
    tasks = [reply.truth["task"] for reply in paired.replies]
    metrics = {"score": Measure.of(scores), "task_mean": mean_of_group_means(by_group(tasks, scores))}
    report = Report.of("mixture", paired, scores, metrics, groups={"task": group(tasks, scores)})
    report.parts = by_group(tasks, [reply.key for reply in paired.replies])
    report.details = {"rule": "exact match"}
    return report


def is_truth(entry: Any) -> bool:
    return isinstance(entry, Mapping) and all(isinstance(entry.get(key), str) for key in ("task", "answer"))


MIXTURE = Benchmark(
    name="mixture",
    column="mixture",
    annotations=("annotations.json",),
    score=score,
    visual=False,
    paper=False,
    images="./playground/data/mixture/images",
    answer_flags=("--max_new_tokens", "12"),
    answers="answers/{stem}/{name}.jsonl",
    annotation_help="annotations.json: question id -> task and answer",
)
