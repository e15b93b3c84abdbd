"""Scores MMLU answers: per subject, per category, and both averages; says how the letters were got.

`python -m llava.eval.eval_mmlu --annotation-file A --result-file R [--question-file Q] [--report-file O]`
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llava.eval.answering.errors import some
from llava.eval.benchmarks.mmlu import LETTERS, QUESTIONS, SHOTS, SUBJECTS
from llava.eval.benchmarks.published import not_as_published
from llava.eval.scoring.group_means import by_group, mean_of_group_means
from llava.eval.scoring.letters import VERSION, read_letter
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

METHODS = ("generate", "loglikelihood")
_EXPECTED = "expected the annotations.json that `python -m llava.eval.prepare mmlu` writes"


def score(
    answers: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, Mapping[str, Any]],
    asked: Iterable[str] | None = None,
    missing: str = "error",
) -> Report:
    """Accuracy by the letter.

    Args:
        answers: lines; `method` says by which of `METHODS` the letter was got (generated where it is not said), `shots`
            after how many examples.
        annotations: question id ("SUBJECT/NUMBER") -> `answer`, a letter, and `choices`, four texts.
        asked, missing: as `llava.eval.scoring.pairing.pair` takes them.

    Returns:
        `accuracy` (each question weighing the same, as lm-eval's `mmlu`), `subject_mean` (each subject weighing the
        same), `category_mean`; accuracy of each category and subject.

    Raises:
        ScoringError: answers of both methods in one file, or that do not belong to the questions.
    """
    check_annotations(annotations)
    paired = pair(answers, annotations, asked=asked, missing=missing)
    methods = {line.get("method", "generate") for line in answers}
    if len(methods) != 1 or not methods <= set(METHODS):
        raise ScoringError(
            f"the answers were got by {', '.join(sorted(map(str, methods)))}; expected one of {', '.join(METHODS)}"
        )
    (method,) = methods
    subjects = [reply.key.rpartition("/")[0] for reply in paired.replies]
    unknown = sorted(set(subjects) - set(SUBJECTS))
    if unknown:
        raise ScoringError(f"question ids of unknown MMLU subjects: {some(unknown)}")
    letters = [read_letter(reply.text or "", reply.truth["choices"]) for reply in paired.replies]
    right = [float(letter == reply.truth["answer"]) for letter, reply in zip(letters, paired.replies, strict=True)]
    categories = [SUBJECTS[subject] for subject in subjects]
    own, wide = by_group(subjects, right), by_group(categories, right)
    fewer = [r for r in paired.replies if r.line and r.line.get("shots", SHOTS) < SHOTS]
    warnings = list(paired.warnings)
    if fewer:
        warnings.append(f"{len(fewer)} prompts hold fewer than {SHOTS} examples, as more did not fit into the context")
    if len(own) < len(SUBJECTS):
        warnings.append(f"{len(own)} of the {len(SUBJECTS)} subjects")
    return Report(
        benchmark="mmlu",
        metric="accuracy",
        metrics={
            "accuracy": Measure.of(right),
            "subject_mean": mean_of_group_means(own),
            "category_mean": mean_of_group_means(wide),
        },
        answers=len(right),
        parse_failures=letters.count(None),
        per_question={reply.key: value for reply, value in zip(paired.replies, right, strict=True)},
        groups={
            "category": {name: Measure.of(scores) for name, scores in wide.items()},
            "subject": {name: Measure.of(scores) for name, scores in own.items()},
        },
        details={
            "method": method,
            "what": "letter generated after the paper's prompt"
            if method == "generate"
            else "most probable of the continuations A to D (lm-eval); not comparable with generated letters",
            "letter_rule": VERSION,
            "shots": SHOTS,
            "published_samples": QUESTIONS,
        },
        warnings=warnings,
        model=model_of(answers),
    )


def check_annotations(annotations: Any) -> None:
    """Raises `ScoringError` where annotations are of another kind of file; names the first that is none."""
    rows = annotations if isinstance(annotations, Mapping) else {}
    for name, truth in rows.items():
        choices = truth.get("choices") if isinstance(truth, Mapping) else None
        if not isinstance(choices, Sequence) or len(choices) != len(LETTERS) or truth.get("answer") not in set(LETTERS):
            raise ScoringError(f"annotation {name!r} has not four choices and the letter of one as answer; {_EXPECTED}")
    if not rows:
        raise ScoringError(f"the annotations are empty or no object of question ids; {_EXPECTED}")


def main() -> None:
    parser = scorer_parser(__doc__, "answers, as llava.eval.model_mmlu writes them")
    parser.add_argument("--annotation-file", required=True, help="annotations.json, as llava.eval.prepare writes it")
    args = parser.parse_args()
    if not args.result_file:
        parser.error("--result-file is needed")
    annotations, asked = read_json(args.annotation_file), asked_ids(args.question_file)
    check_annotations(annotations)
    report = score(read_answers(args.result_file), annotations, asked, args.missing)
    print(f"MMLU by {report.details['method']}: {report.details['what']}")
    report.warnings += not_as_published("mmlu", len(annotations))
    report.publish(report_path(args.report_file, args.result_file))


if __name__ == "__main__":
    run_scorer(main)
