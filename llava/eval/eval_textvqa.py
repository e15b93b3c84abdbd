"""Scores TextVQA answers by the rules of LLaVA's evaluation (M4C's soft accuracy).

`python -m llava.eval.eval_textvqa --annotation-file TextVQA_0.5.1_val.json --result-file answers.jsonl`; with
--result-dir, every .jsonl in a folder. An answer is found by its image and its question, which the saved prompt holds
on a line of its own, as image ids are not unique.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.benchmarks.published import not_as_published
from llava.eval.m4c_evaluator import TextVQAAccuracyEvaluator
from llava.eval.scoring.pairing import (
    Reply,
    ScoringError,
    model_of,
    pair,
    read_answers,
    read_json,
    read_jsonl,
    run_scorer,
    scorer_parser,
)
from llava.eval.scoring.report import Measure, Report, report_path

OCR_LINE = "Reference OCR token:"
_SHORT_ANSWER = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)
# Image, question in lower case, and which of several equal questions it is.
Key = tuple[str, str, int]


def prompt_processor(prompt: str) -> str:
    """The question, in lower case, that a saved prompt asks; upstream's three forms of prompt.

    Raises:
        ScoringError: a prompt of another form.
    """
    prompt = prompt.removeprefix(f"{DEFAULT_IMAGE_TOKEN}\n")
    lines = prompt.split("\n")
    if prompt.startswith("OCR tokens: "):
        found = _SHORT_ANSWER.search(prompt)
        question = found.group(1) if found else None
    elif "Reference OCR token: " in prompt and len(lines) == 3:
        question = lines[1] if prompt.startswith(OCR_LINE) else lines[0]
    elif len(lines) == 2:
        question = lines[0]
    else:
        question = None
    if question is None:
        raise ScoringError(
            f"no question is found in the prompt {prompt[:120]!r}; it must be on a line of its own, before or after "
            f"a line {OCR_LINE!r}, followed by the line that asks for a short answer"
        )
    return question.lower()


def score(
    answers: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    questions: Sequence[Mapping[str, Any]] | None = None,
    missing: str = "error",
) -> Report:
    """TextVQA accuracy.

    Args:
        answers: lines with `question_id` (the image's id), `prompt` and `text`.
        annotations: entries of the official file's `data`: `image_id`, `question`, `question_id`, ten `answers`.
        questions: lines of the question file, where not the whole benchmark was asked.

    Raises:
        ScoringError: answers and annotations do not belong together.
    """
    truths = dict(zip(_keys(_annotated(entry) for entry in annotations), annotations, strict=True))
    keyed = dict(zip(map(id, answers), _keys(map(_asked, answers)), strict=True))
    asked = None
    if questions is not None:
        asked = _keys((str(question["question_id"]), prompt_processor(question["text"])) for question in questions)
    paired = pair(
        answers,
        truths,
        key=lambda line: keyed[id(line)],
        asked=asked,
        missing=missing,
        name=lambda key: str(truths[key].get("question_id", key)) if key in truths else f"{key[0]} ({key[1]!r})",
    )
    evaluator = TextVQAAccuracyEvaluator()
    scores = [_score(evaluator, reply) for reply in paired.replies]
    with_tokens = sum(OCR_LINE in line["prompt"] or "OCR tokens: " in line["prompt"] for line in answers)
    return Report(
        benchmark="textvqa",
        metric="accuracy",
        metrics={"accuracy": Measure.of(scores)},
        answers=len(answers),
        parse_failures=sum(not line["text"].strip() for line in answers),
        per_question={reply.key: value for reply, value in zip(paired.replies, scores, strict=True)},
        details={"rule": "m4c", "prompts": _prompts(with_tokens, len(answers))},
        warnings=paired.warnings,
        model=model_of(answers),
    )


def _keys(pairs: Iterable[tuple[str, str]]) -> list[Key]:
    seen: dict[tuple[str, str], int] = {}
    keys = []
    for pair_ in pairs:
        seen[pair_] = seen.get(pair_, 0) + 1
        keys.append((*pair_, seen[pair_]))
    return keys


def _annotated(entry: Mapping[str, Any]) -> tuple[str, str]:
    try:
        return str(entry["image_id"]), entry["question"].lower()
    except (KeyError, TypeError, AttributeError) as error:
        raise ScoringError(
            f"an annotation without image_id and question ({error!r}); expected TextVQA's official file of a split"
        ) from error


def _asked(line: Mapping[str, Any]) -> tuple[str, str]:
    if not isinstance(line.get("prompt"), str):
        raise ScoringError(f"the answer to {line['question_id']} has no prompt, which tells its question")
    return str(line["question_id"]), prompt_processor(line["prompt"])


def _score(evaluator: TextVQAAccuracyEvaluator, reply: Reply) -> float:
    if "answers" not in reply.truth:
        raise ScoringError(f"annotation {reply.key} has no answers; TextVQA's test split holds none, use val")
    try:
        worth = evaluator.answer_scores(reply.truth["answers"])
    except ValueError as error:
        raise ScoringError(f"annotation {reply.key}: {error}") from error
    return 0.0 if reply.text is None else worth.get(evaluator.answer_processor(reply.text), 0.0)


def _prompts(with_tokens: int, total: int) -> str:
    """Which of the two ways of asking it was; their scores are far apart."""
    if 0 < with_tokens < total:
        raise ScoringError(f"{with_tokens} of {total} prompts hold OCR tokens, the others do not; score them apart")
    return "with OCR tokens" if with_tokens else "without OCR tokens"


def read_annotations(path: str | Path) -> list[dict[str, Any]]:
    """The entries of TextVQA's official annotation file."""
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("data"), list):
        raise ScoringError(f"{path} has no list `data`; expected TextVQA_0.5.1_val.json")
    return data["data"]


def main() -> None:
    parser = scorer_parser(__doc__, required=False)
    parser.add_argument("--annotation-file", required=True, help="TextVQA_0.5.1_val.json")
    parser.add_argument("--result-dir", help="score every .jsonl in this folder")
    args = parser.parse_args()
    if bool(args.result_dir) == bool(args.result_file):
        raise ScoringError("give --result-file or --result-dir, and not both")
    files = [Path(args.result_file)] if args.result_file else sorted(Path(args.result_dir).glob("*.jsonl"))
    if not files:
        raise ScoringError(f"{args.result_dir} holds no .jsonl file")
    if args.report_file and len(files) > 1:
        raise ScoringError("--report-file names one file; with --result-dir each score goes beside its answers")
    annotations = read_annotations(args.annotation_file)
    questions = read_jsonl(args.question_file) if args.question_file else None
    if questions is not None and not all({"question_id", "text"} <= row.keys() for row in questions):
        raise ScoringError(f"question file {args.question_file}: each line needs question_id and text")
    for file in files:
        report = score(read_answers(file), annotations, questions, args.missing)
        # These two lines are upstream's.
        print(f"{file.stem}\nSamples: {report.headline.samples}\nAccuracy: {100 * report.headline.value:.2f}%\n")
        report.warnings += not_as_published("textvqa", len(annotations))
        report.publish(report_path(args.report_file, file))


if __name__ == "__main__":
    run_scorer(main)
