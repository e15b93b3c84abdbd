"""Scores ScienceQA answers: all questions, and those with an image. Flags and output files are upstream's.

`python -m llava.eval.eval_science_qa --base-dir scienceqa --result-file answers.jsonl`
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.answering.errors import some
from llava.eval.benchmarks.published import not_as_published
from llava.eval.scoring.pairing import (
    Paired,
    Reply,
    ScoringError,
    model_of,
    pair,
    read_answers,
    read_json,
    run_scorer,
    scorer_parser,
)
from llava.eval.scoring.report import Measure, Report, group, report_path
from llava.files import write_json

OPTIONS = ("A", "B", "C", "D", "E")
# Upstream's pattern; its last dot is any character.
_ANSWER_IS = re.compile(r"The answer is ([A-Z]).")
FAILED = "FAILED"


def parse_answer(text: str, options: Sequence[str] = OPTIONS) -> str:
    """The letter that a reply gives, or "FAILED": a bare letter, "X. ..." at its start, or one "The answer is X."."""
    if text in options:
        return text
    if len(text) >= 3 and text[0] in options and text[1:3] == ". ":
        return text[0]
    found = _ANSWER_IS.findall(text)
    return found[0] if len(found) == 1 else FAILED


def choice_of(letter: str, problem: Mapping[str, Any], options: Sequence[str] = OPTIONS) -> int:
    """Index of the choice that a letter names; -1 where the problem has no such choice."""
    allowed = options[: len(problem["choices"])]
    return allowed.index(letter) if letter in allowed else -1


def split_problems(problems: Mapping[str, Any], splits: Mapping[str, Any], split: str) -> dict[str, Any]:
    """The problems of a split, by id.

    Raises:
        ScoringError: no such split, an empty one, or one whose problems are not there or are none.
    """
    if not isinstance(problems, Mapping) or not isinstance(splits, Mapping):
        raise ScoringError("problems.json and pid_splits.json are not ScienceQA's: each holds a JSON object")
    if split not in splits:
        raise ScoringError(f"pid_splits.json has no split {split!r}; it has {', '.join(splits)}")
    if not splits[split]:
        raise ScoringError(f"split {split!r} of pid_splits.json is empty: there is nothing to score against")
    absent = [pid for pid in splits[split] if str(pid) not in problems]
    if absent:
        raise ScoringError(f"problems.json lacks {len(absent)} problems of {split}: {some(map(str, absent))}")
    found = {str(pid): problems[str(pid)] for pid in splits[split]}
    broken = [pid for pid, problem in found.items() if not _is_problem(problem)]
    if broken:
        raise ScoringError(
            f"problems.json: {len(broken)} problems of {split} have no choices, or no answer among them: {some(broken)}"
        )
    return found


def _is_problem(problem: Any) -> bool:
    if not isinstance(problem, Mapping) or not isinstance(problem.get("choices"), list):
        return False
    return isinstance(problem.get("answer"), int) and 0 <= problem["answer"] < len(problem["choices"])


def read_asked(path: str | None) -> list[str] | None:
    """Ids of a question file, for `asked`; None without a file.

    Raises:
        ScoringError: another kind of file; names the entries that have no id.
    """
    if path is None:
        return None
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise ScoringError(f"question file {path} holds no list of questions; expected llava_test_CQM-A.json")
    without = [f"entry {n}" for n, row in enumerate(rows, start=1) if not isinstance(row, dict) or "id" not in row]
    if without:
        raise ScoringError(f"question file {path}: {len(without)} entries are no questions with an id: {some(without)}")
    return [str(row["id"]) for row in rows]


def score(
    answers: Sequence[Mapping[str, Any]],
    problems: Mapping[str, Mapping[str, Any]],
    asked: Sequence[str] | None = None,
    missing: str = "error",
    options: Sequence[str] = OPTIONS,
) -> tuple[Report, Paired]:
    """ScienceQA accuracy; the headline is the image subset's where there is one, as in the paper.

    Args:
        problems: those of the split, by id, as in problems.json: `choices`, `answer` (an index), `image`.

    Returns:
        The report, and the pairs it was made from.
    """
    paired = pair(answers, problems, asked=asked, missing=missing)
    hits = [
        float(r.text is not None and choice_of(parse_answer(r.text, options), r.truth, options) == r.truth["answer"])
        for r in paired.replies
    ]
    with_image = [has_image(reply) for reply in paired.replies]
    metrics = {"accuracy": Measure.of(hits)}
    headline = "accuracy"
    on_images = [hit for hit, image in zip(hits, with_image, strict=True) if image]
    if on_images:
        metrics["image_accuracy"] = Measure.of(on_images)
        headline = "image_accuracy"
    report = Report(
        benchmark="scienceqa",
        metric=headline,
        metrics=metrics,
        answers=len(answers),
        parse_failures=sum(parse_answer(line["text"], options) == FAILED for line in answers),
        per_question={
            reply.key: hit
            for reply, hit, image in zip(paired.replies, hits, with_image, strict=True)
            if image or headline == "accuracy"
        },
        groups=_by(paired.replies, hits, "subject"),
        details={"rule": "LLaVA's eval_science_qa"},
        warnings=paired.warnings + _blind(paired.replies),
        model=model_of(answers),
    )
    return report, paired


def has_image(reply: Reply) -> bool:
    """Whether the problem has an image. Upstream asks the saved prompt, which a text-only problem's does not hold."""
    if "image" in reply.truth:
        return bool(reply.truth["image"])
    return reply.line is not None and DEFAULT_IMAGE_TOKEN in reply.line.get("prompt", "")


def _blind(replies: Sequence[Reply]) -> list[str]:
    blind = [
        reply.key
        for reply in replies
        if reply.line is not None and has_image(reply) and DEFAULT_IMAGE_TOKEN not in reply.line.get("prompt", "")
    ]
    if not blind:
        return []
    return [f"{len(blind)} questions with an image were asked without {DEFAULT_IMAGE_TOKEN}: {some(blind)}"]


def _by(replies: Sequence[Reply], hits: Sequence[float], name: str) -> dict[str, dict[str, Measure]]:
    if not all(reply.truth.get(name) for reply in replies):
        return {}
    return {name: group([reply.truth[name] for reply in replies], hits)}


def upstream_outputs(
    paired: Paired, options: Sequence[str] = OPTIONS
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Contents of upstream's --output-file and --output-result (with the image counts that Bunny adds)."""
    sorted_out: dict[str, list[dict[str, Any]]] = {"correct": [], "incorrect": []}
    results, outputs = {}, {}
    image_right = image_count = 0
    for reply in paired.replies:
        text = FAILED if reply.text is None else reply.text
        letter = parse_answer(text, options)
        chosen = choice_of(letter, reply.truth, options)
        right = reply.text is not None and chosen == reply.truth["answer"]
        image_count += has_image(reply)
        image_right += has_image(reply) and right
        results[reply.key], outputs[reply.key] = chosen, text
        sorted_out["correct" if right else "incorrect"].append(
            {
                "question_id": reply.key,
                "parsed_ans": letter,
                "ground_truth": options[reply.truth["answer"]],
                "question": (reply.line or {}).get("prompt", "Unknown"),
                "pred": text,
                "is_multimodal": has_image(reply),
            }
        )
    right, count = len(sorted_out["correct"]), len(paired.replies)
    result = {
        "acc": 100 * right / count,
        "correct": right,
        "count": count,
        "image_acc": 100 * image_right / image_count if image_count else None,
        "image_correct": image_right,
        "image_count": image_count,
        "results": results,
        "outputs": outputs,
    }
    return sorted_out, result


def main() -> None:
    parser = scorer_parser(__doc__)
    parser.add_argument("--base-dir", required=True, help="folder of pid_splits.json and problems.json")
    parser.add_argument("--output-file", help="upstream's list of right and wrong answers")
    parser.add_argument("--output-result", help="upstream's result file")
    parser.add_argument("--split", default="test")
    parser.add_argument("--options", nargs="+", default=list(OPTIONS))
    args = parser.parse_args()
    base = Path(args.base_dir)
    problems = split_problems(read_json(base / "problems.json"), read_json(base / "pid_splits.json"), args.split)
    asked = read_asked(args.question_file)
    report, paired = score(read_answers(args.result_file), problems, asked, args.missing, args.options)
    sorted_out, result = upstream_outputs(paired, args.options)
    if args.output_file:
        write_json(args.output_file, sorted_out)
    if args.output_result:
        write_json(args.output_result, result)
    image = "" if result["image_acc"] is None else f", IMG-Accuracy: {result['image_acc']:.2f}%"
    print(f"Total: {result['count']}, Correct: {result['correct']}, Accuracy: {result['acc']:.2f}%{image}")
    if args.split == "test":
        report.warnings += not_as_published("scienceqa", len(problems))
    report.publish(report_path(args.report_file, args.result_file))


if __name__ == "__main__":
    run_scorer(main)
