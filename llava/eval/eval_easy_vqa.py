"""Scores easy-VQA answers: exact match, by kind of question.

`python -m llava.eval.eval_easy_vqa --annotation-file A --result-file R [--question-file Q] [--output-file O]`
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.answers import ScoringError, model_of, read_jsonl
from llava.eval.metrics import normalise
from llava.eval.report import Measure, Report, group
from llava.eval.statistics import wilson
from llava.files import write_json

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
KINDS = ("all", "shape", "colour", "yes_no")


def kind_of(answer: str) -> str:
    """The kind of question that an annotated answer belongs to: shape, colour or yes_no."""
    return "shape" if answer in SHAPES else "colour" if answer in COLOURS else "yes_no"


def score(
    answers: Sequence[Mapping[str, Any]], annotations: Mapping[str, str], expected: Iterable[Any] | None = None
) -> dict[str, Any]:
    """Accuracy by kind.

    Args:
        answers: lines of an answers file, with `question_id` and `text`.
        annotations: question id -> answer.
        expected: the ids that must be answered; default: those that are.

    Returns:
        `all`, `shape`, `colour`, `yes_no`: accuracy in [0, 1] (None for a kind without questions); `questions`: how
        many in all; `counts` and `intervals` (Wilson, 95%) by kind.

    Raises:
        ScoringError: an id answered twice, unknown to the annotations, or not answered.
    """
    ids = [str(line["question_id"]) for line in answers]
    problems = {
        "answered more than once": [i for i, n in Counter(ids).items() if n > 1],
        "not among the annotations": [i for i in ids if i not in annotations],
        "not answered": sorted({str(i) for i in expected} - set(ids)) if expected is not None else [],
    }
    found = [f"{len(bad)} question ids are {what}: {', '.join(bad[:5])}" for what, bad in problems.items() if bad]
    if found:
        raise ScoringError("; ".join(found))
    if not ids:
        raise ScoringError("there are no answers to score")
    pairs = [(str(line["text"]), annotations[i]) for line, i in zip(answers, ids, strict=True)]
    return _tally((kind_of(truth), normalise(said) == truth) for said, truth in pairs)


def as_report(answers: Sequence[Mapping[str, Any]], annotations: Mapping[str, str]) -> Report:
    """The shape that all benchmarks share, of answers that `score` takes; a reply that is none of the data set's
    answers counts as unreadable."""
    truths = {str(line["question_id"]): annotations[str(line["question_id"])] for line in answers}
    said = {str(line["question_id"]): normalise(str(line["text"])) for line in answers}
    right = {name: float(said[name] == truth) for name, truth in truths.items()}
    kinds = [kind_of(truth) for truth in truths.values()]
    known = {*SHAPES, *COLOURS, "yes", "no"}
    return Report(
        benchmark="easy_vqa",
        metric="accuracy",
        metrics={"accuracy": Measure.of(list(right.values()))},
        answers=len(answers),
        parse_failures=sum(text not in known for text in said.values()),
        per_question=right,
        groups={"kind": group(kinds, list(right.values()))},
        details={"rule": "exact match"},
        model=model_of(answers),
    )


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


def table(result: Mapping[str, Any]) -> str:
    """The score as lines of text, in percent."""
    rows = []
    for kind in KINDS:
        if result[kind] is not None:
            low, high = result["intervals"][kind]
            share = f"{100 * result[kind]:6.2f}%  ({100 * low:.1f} to {100 * high:.1f})"
            rows.append(f"{kind:8s}{share}  {result['counts'][kind]} questions")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Score easy-VQA answers")
    parser.add_argument("--annotation-file", required=True)
    parser.add_argument("--result-file", required=True, help="answers, as model_vqa_loader writes them")
    parser.add_argument("--question-file", help="check that each of its questions is answered")
    parser.add_argument("--output-file", help="write the score as JSON: these figures, and the shape of all benchmarks")
    args = parser.parse_args()
    annotations = json.loads(Path(args.annotation_file).read_text(encoding="utf-8"))
    expected = [q["question_id"] for q in read_jsonl(args.question_file)] if args.question_file else None
    answers = read_jsonl(args.result_file)
    result = score(answers, annotations, expected)
    print(table(result))
    if args.output_file:
        write_json(args.output_file, as_report(answers, annotations).as_dict() | result)
        print(f"score written to {args.output_file}")


if __name__ == "__main__":
    main()
