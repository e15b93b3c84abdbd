"""Scores easy-VQA answers: exact match, by kind of question.

`python -m llava.eval.eval_easy_vqa --annotation-file A --result-file R [--question-file Q] [--report-file O]`
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llava.eval.scoring.pairing import (
    Paired,
    ScoringError,
    asked_ids,
    model_of,
    pair,
    read_answers,
    read_json,
    run_scorer,
    scorer_parser,
)
from llava.eval.scoring.report import Measure, Report, group, report_path
from llava.eval.scoring.rules import normalise
from llava.eval.scoring.statistics import wilson
from llava.files import write_json

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
KINDS = ("all", "shape", "colour", "yes_no")


def kind_of(answer: str) -> str:
    """The kind of question that an annotated answer belongs to: shape, colour or yes_no."""
    return "shape" if answer in SHAPES else "colour" if answer in COLOURS else "yes_no"


def score(answers: Sequence[Mapping[str, Any]], annotations: Mapping[str, str]) -> dict[str, Any]:
    """Accuracy by kind, over the questions that were answered.

    Args:
        answers: lines of an answers file, with `question_id` and `text`.
        annotations: question id -> answer.

    Returns:
        `all`, `shape`, `colour`, `yes_no`: accuracy in [0, 1] (None for a kind without questions); `questions`: how
        many in all; `counts` and `intervals` (Wilson, 95%) by kind.

    Raises:
        ScoringError: an id answered twice or unknown to the annotations, or no answers.
    """
    return by_kind(pair(answers, annotations, asked=[str(line["question_id"]) for line in answers]))


def by_kind(paired: Paired[str]) -> dict[str, Any]:
    """What `score` returns, of answers that are set against their annotations."""
    return _tally((kind_of(reply.truth), _right(reply.text, reply.truth)) for reply in paired.replies)


def as_report(
    answers: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, str],
    asked: Iterable[str] | None = None,
    missing: str = "error",
) -> tuple[Report, Paired[str]]:
    """The shape that all benchmarks share; a reply that is none of the data set's answers counts as unreadable.

    Args:
        asked, missing: as `llava.eval.scoring.pairing.pair` takes them.

    Returns:
        The report, and the pairs it was made from.
    """
    if not isinstance(annotations, Mapping) or not all(isinstance(truth, str) for truth in annotations.values()):
        raise ScoringError("the annotations are not easy-VQA's: an object of question ids, each with its answer")
    paired = pair(answers, annotations, asked=asked, missing=missing)
    right = [float(_right(reply.text, reply.truth)) for reply in paired.replies]
    known = {*SHAPES, *COLOURS, "yes", "no"}
    report = Report(
        benchmark="easy_vqa",
        metric="accuracy",
        metrics={"accuracy": Measure.of(right)},
        answers=len(answers),
        parse_failures=sum(normalise(line["text"]) not in known for line in answers),
        per_question={reply.key: hit for reply, hit in zip(paired.replies, right, strict=True)},
        groups={"kind": group([kind_of(reply.truth) for reply in paired.replies], right)},
        details={"rule": "exact match"},
        warnings=paired.warnings,
        model=model_of(answers),
    )
    return report, paired


def _right(said: str | None, truth: str) -> bool:
    return said is not None and normalise(said) == truth


def blind_baseline(train: Iterable[tuple[str, str]], test: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Score of always giving the commonest training answer to each question text, without looking at an image."""
    seen: dict[str, Counter] = defaultdict(Counter)
    for question, answer in train:
        seen[question][answer] += 1
    guesses = {question: counts.most_common(1)[0][0] for question, counts in seen.items()}
    return _tally((kind_of(answer), guesses.get(question) == answer) for question, answer in test)


def _tally(results: Iterable[tuple[str, bool]]) -> dict[str, Any]:
    right: Counter = Counter()
    total: Counter = Counter()
    for kind, correct in results:
        for name in ("all", kind):
            right[name] += correct
            total[name] += 1
    return {
        **{kind: right[kind] / total[kind] if total[kind] else None for kind in KINDS},
        "questions": total["all"],
        "counts": {kind: total[kind] for kind in KINDS},
        "intervals": {kind: wilson(right[kind], total[kind]) for kind in KINDS if total[kind]},
    }


def main() -> None:
    parser = scorer_parser(__doc__)
    parser.add_argument("--annotation-file", required=True, help="annotations.json: question id -> answer")
    parser.add_argument("--output-file", dest="report_file", help="the same as --report-file")
    args = parser.parse_args()
    annotations, asked = read_json(args.annotation_file), asked_ids(args.question_file)
    report, paired = as_report(read_answers(args.result_file), annotations, asked, args.missing)
    path = report_path(args.report_file, args.result_file)
    print(report.table())
    write_json(path, report.as_dict() | by_kind(paired))
    print(f"score written to {path}")


if __name__ == "__main__":
    run_scorer(main)
