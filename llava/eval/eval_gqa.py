"""Scores GQA answers by the official rules, without the files that the v1.2 download lacks.

`python -m llava.eval.eval_gqa --annotation-file testdev_balanced_questions.json --result-file merge.jsonl`; the
official script's `--tier`, `--questions` and `--predictions` are taken too. Validity, plausibility and consistency need
scene graphs, choices and all questions, which the download does not hold; they are not computed.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmarks.published import not_as_published
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
from llava.eval.scoring.report import Measure, Report, group, report_path

# Steps that ask for the answer and do not lengthen the reasoning.
_ASKING = ("exist", "query: name", "choose name")


def normalise(text: str) -> str:
    """What is compared: the reply without its final full stops, in lower case (upstream's convert_gqa_for_eval)."""
    return text.rstrip(".").lower()


def score(
    answers: Sequence[Mapping[str, Any]],
    questions: Mapping[str, Mapping[str, Any]],
    asked: Sequence[str] | None = None,
    missing: str = "error",
) -> Report:
    """GQA accuracy over the balanced questions: the reply must equal the answer.

    Args:
        answers: lines with `question_id` and `text`.
        questions: the official file of a tier: id -> `answer`, `types`, `semantic`, `groups`, `isBalanced`, `question`.
    """
    try:
        balanced = {qid: question for qid, question in questions.items() if question["isBalanced"]}
        extra = set(questions) - set(balanced)
        answers = [line for line in answers if str(line["question_id"]) not in extra]
        paired = pair(answers, balanced, asked=asked, missing=missing)
        said = [None if r.text is None else normalise(r.text) for r in paired.replies]
        truths = [reply.truth for reply in paired.replies]
        hits = [float(text == truth["answer"]) for text, truth in zip(said, truths, strict=True)]
        groups = {
            "structural type": group([truth["types"]["structural"] for truth in truths], hits),
            "semantic type": group([truth["types"]["semantic"] for truth in truths], hits),
            "steps": group([f"{steps(truth):02d}" for truth in truths], hits),
            "words": group([f"{len(truth['question'].split()):02d}" for truth in truths], hits),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ScoringError(f"the questions are not in GQA's official form ({error!r} is missing)") from error
    metrics = {"accuracy": Measure.of(hits)}
    for name, binary in (("binary", True), ("open", False)):
        part = [
            hit for hit, truth in zip(hits, truths, strict=True) if (truth["types"]["structural"] != "query") == binary
        ]
        if part:
            metrics[name] = Measure.of(part)
    return Report(
        benchmark="gqa",
        metric="accuracy",
        metrics=metrics,
        answers=len(answers),
        parse_failures=sum(not line["text"].strip() for line in answers),
        per_question={reply.key: hit for reply, hit in zip(paired.replies, hits, strict=True)},
        groups=groups,
        details={"rule": "GQA official, strict equality", "distribution": distribution(truths, said)},
        warnings=paired.warnings,
        model=model_of(answers),
    )


def steps(question: Mapping[str, Any]) -> int:
    """Reasoning steps of a question, without the one that asks."""
    texts = (f"{step['operation']}: {step['argument']}" for step in question["semantic"])
    return sum(not any(word in text for word in _ASKING) for text in texts)


def distribution(truths: Sequence[Mapping[str, Any]], said: Sequence[str | None]) -> float | None:
    """Chi-square between given and true answers within each global group, weighted by size; lower is better."""
    gold: dict[str, Counter] = defaultdict(Counter)
    given: dict[str, Counter] = defaultdict(Counter)
    for truth, text in zip(truths, said, strict=True):
        name = (truth.get("groups") or {}).get("global")
        if name is not None:
            gold[name][truth["answer"]] += 1
            given[name][text] += 1
    if not gold:
        return None
    total = weighted = 0.0
    for name, counts in gold.items():
        size = sum(counts.values())
        weighted += size * sum((given[name][answer] - n) ** 2 / n for answer, n in counts.items())
        total += size
    return weighted / total


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Answers in JSON lines, or predictions (questionId, prediction) as convert_gqa_for_eval writes them."""
    if Path(path).suffix != ".json":
        return read_answers(path)
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise ScoringError(f"{path} holds no list of predictions")
    try:
        return [{"question_id": row["questionId"], "text": row["prediction"]} for row in rows]
    except (KeyError, TypeError) as error:
        raise ScoringError(f"{path}: each prediction needs questionId and prediction") from error


def main() -> None:
    parser = scorer_parser(__doc__, "answers, or a file of convert_gqa_for_eval", required=False)
    parser.add_argument("--annotation-file", "--questions", help="default: {tier}_questions.json")
    parser.add_argument("--predictions", help="the official script's name of --result-file")
    parser.add_argument("--tier", default="testdev_balanced")
    args = parser.parse_args()
    result_file = args.result_file or (args.predictions or "{tier}_predictions.json").format(tier=args.tier)
    annotation_file = (args.annotation_file or "{tier}_questions.json").format(tier=args.tier)
    questions, asked = read_json(annotation_file), asked_ids(args.question_file)
    report = score(read_predictions(result_file), questions, asked, args.missing)
    if args.tier == "testdev_balanced":
        report.warnings += not_as_published("gqa", len(questions))
    report.publish(report_path(args.report_file, result_file))
    value = report.details["distribution"]
    print("Distribution: " + ("none" if value is None else f"{value:.2f} (lower is better)"))


if __name__ == "__main__":
    run_scorer(main)
