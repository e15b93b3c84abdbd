"""Scores BIG-bench-hard answers: zero-shot, strict and flexible, per task and over all.

`python -m llava.eval.eval_bbh --annotation-file A --result-file R [--question-file Q] [--report-file O] [--last-match]`
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llava.eval.benchmarks.bbh import TASKS, flexible_match, strict_match
from llava.eval.benchmarks.published import not_as_published
from llava.eval.scoring.group_means import by_group, mean_of_group_means
from llava.eval.scoring.pairing import (
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

_EXPECTED = "expected the annotations.json that `python -m llava.eval.prepare bbh` writes"


def score(
    answers: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, Mapping[str, str]],
    asked: Iterable[str] | None = None,
    missing: str = "error",
    last: bool = False,
) -> Report:
    """Accuracy of both rules.

    Args:
        annotations: question id -> `task`, `input`, `target`, as `llava.eval.prepare` writes them.
        asked, missing: as `llava.eval.scoring.pairing.pair` takes them.
        last: the last answer in a reply counts in place of the first: not the published rule.

    Returns:
        `flexible` (the headline) and `strict`, each question weighing the same, as published; `flexible_task_mean` and
        `strict_task_mean`, each task weighing the same; flexible accuracy of each task.

    Raises:
        ScoringError: answers that do not belong to the questions, or annotations of an unknown task.
    """
    check_annotations(annotations)
    unknown = sorted({truth["task"] for truth in annotations.values()} - set(TASKS))
    if unknown:
        raise ScoringError(f"unknown BIG-bench-hard tasks in the annotations: {', '.join(unknown)}")
    paired = pair(answers, annotations, asked=asked, missing=missing)
    tasks, strict, flexible, failures = [], [], [], 0
    for reply in paired.replies:
        truth, text = reply.truth, reply.text or ""
        right, parsed = flexible_match(truth["task"], truth["input"], text, truth["target"], last)
        tasks.append(truth["task"])
        strict.append(float(strict_match(text, truth["target"])))
        flexible.append(float(right))
        failures += not parsed
    groups = {"flexible": by_group(tasks, flexible), "strict": by_group(tasks, strict)}
    warnings = list(paired.warnings)
    absent = sorted(set(TASKS) - set(tasks))
    if absent:
        warnings.append(f"{len(tasks)} questions of {27 - len(absent)} of the 27 tasks; without {', '.join(absent)}")
    return Report(
        benchmark="bbh",
        metric="flexible",
        metrics={
            "flexible": Measure.of(flexible),
            "strict": Measure.of(strict),
            "flexible_task_mean": mean_of_group_means(groups["flexible"]),
            "strict_task_mean": mean_of_group_means(groups["strict"]),
        },
        answers=len(paired.replies),
        parse_failures=failures,
        per_question={reply.key: value for reply, value in zip(paired.replies, flexible, strict=True)},
        groups={
            f"{rule}, task": {task: Measure.of(scores) for task, scores in own.items()} for rule, own in groups.items()
        },
        details={"shots": 0, "flexible": f"the {'last' if last else 'first'} answer found in the reply"},
        warnings=warnings,
        model=model_of(answers),
    )


def check_annotations(annotations: Any) -> None:
    """Raises `ScoringError` where annotations are of another kind of file; names the first that is none."""
    needed = ("task", "input", "target")
    rows = annotations if isinstance(annotations, Mapping) else {}
    for name, truth in rows.items():
        if not isinstance(truth, Mapping) or not all(isinstance(truth.get(key), str) for key in needed):
            raise ScoringError(f"annotation {name!r} has no {', '.join(needed)}; {_EXPECTED}")
    if not rows:
        raise ScoringError(f"the annotations are empty or no object of question ids; {_EXPECTED}")


def main() -> None:
    parser = scorer_parser(__doc__)
    parser.add_argument("--annotation-file", required=True, help="annotations.json, as llava.eval.prepare writes it")
    parser.add_argument("--last-match", action="store_true", help="the last answer in a reply counts, not the first")
    args = parser.parse_args()
    if not args.result_file:
        parser.error("--result-file is needed")
    annotations, asked = read_json(args.annotation_file), asked_ids(args.question_file)
    check_annotations(annotations)
    report = score(read_answers(args.result_file), annotations, asked, args.missing, args.last_match)
    report.warnings += not_as_published("bbh", len(annotations))
    report.publish(report_path(args.report_file, args.result_file))


if __name__ == "__main__":
    run_scorer(main)
