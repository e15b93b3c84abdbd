"""ScienceQA, test: accuracy over the questions with an image (the paper's number), and over all; upstream's files."""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.answering.questions import Question
from llava.eval.benchmarks.base import Benchmark, Outputs, Published
from llava.eval.benchmarks.parquet import Split, find_split, unpack, write_made
from llava.eval.benchmarks.preparing import Options, check_count, find, set_up
from llava.eval.scoring.letters import LETTER_SUFFIX
from llava.eval.scoring.pairing import Reply, ScoringError, asked_ids, expecting, pair, read_json, read_questions
from llava.eval.scoring.report import Measure, Report, group
from llava.files import write_json
from llava.names import count, some
from llava.outputs import FileKind

QUESTIONS, PROBLEMS, SPLITS, IMAGES = "llava_test_CQM-A.json", "problems.json", "pid_splits.json", "images/test"
PUBLISHED = Published(4241, "questions")
WITH_IMAGE = Published(2017, "questions with an image")
HUB = ("question", "choices", "answer", "hint", "subject")
"""Columns of lmms-lab/ScienceQA and derek-thomas/ScienceQA."""
OPTIONS = ("A", "B", "C", "D", "E")
# Upstream's pattern; its last dot is any character.
_ANSWER_IS = re.compile(r"The answer is ([A-Z]).")
FAILED = "FAILED"


def from_hub(split: Split, out: Path, options: Options) -> Path:
    """Writes the official files and the images from a copy on the Hub, with the rows' numbers as ids; their folder."""
    check_count(PUBLISHED, len(split), options)
    rows = unpack(split, HUB, out / IMAGES, lambda number, _: f"{number}/image.png", False)
    problems = {str(i): row | {"image": row["image"] and "image.png", "split": "test"} for i, row in enumerate(rows)}
    write_made(out / PROBLEMS, json.dumps(problems), options)
    write_made(out / SPLITS, json.dumps({"test": list(problems)}), options)
    return out


def prepare(raw: Path, out: Path, options: Options) -> int:
    if hub := find_split(raw, "test", "ScienceQA-FULL"):
        raw = from_hub(hub, out, options)
    places = {name: find(raw, name, f"data/scienceqa/{name}") for name in (PROBLEMS, SPLITS)}
    images = find(raw, IMAGES, "test")
    problems = split_problems(read_json(places[PROBLEMS]), read_json(places[SPLITS]), "test")
    with expecting(f"{places[PROBLEMS]} is not ScienceQA's file of problems"):
        rows = [row(pid, problem) for pid, problem in problems.items()]
    check_count(PUBLISHED, len(rows), options)
    check_count(WITH_IMAGE, sum("image" in r for r in rows), options)
    return set_up(out, places | {IMAGES: images}, QUESTIONS, rows, options, images, key=lambda r: r["id"])


def row(pid: str, problem: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of upstream's question file: context, question and choices, answered by a letter."""
    lines = [f"Context: {problem['hint']}"] if problem["hint"] else []
    lines.append(problem["question"])
    lines += [f"{letter}. {choice}" for letter, choice in zip(OPTIONS, problem["choices"], strict=False)]
    image = {}
    if problem["image"]:
        image = {"image": f"{pid}/{problem['image']}"}
        lines.insert(0, DEFAULT_IMAGE_TOKEN)
    turns = [{"from": "human", "value": "\n".join(lines)}, {"from": "gpt", "value": OPTIONS[problem["answer"]]}]
    return {"id": pid, **image, "conversations": turns}


def read_science_questions(path: str | Path, single_pred_prompt: bool = False) -> list[Question]:
    """The questions of `llava_test_CQM-A.json` or `bunny_test_CQM-A.json` (upstream: llava/eval/model_vqa_science.py).

    The saved prompt keeps `<image>`, by which the scorer knows which questions have an image, and the suffix, with
    which `single_pred_prompt` asks for the letter alone.
    """
    questions, broken = [], []
    for number, entry in enumerate(read_questions(path), start=1):
        try:
            text = entry["conversations"][0]["value"].replace(DEFAULT_IMAGE_TOKEN, "").strip()
            text += f"\n{LETTER_SUFFIX}" if single_pred_prompt else ""
            image = entry.get("image") or None
            saved = f"{DEFAULT_IMAGE_TOKEN}\n{text}" if image else text
            questions.append(Question(len(questions), entry["id"], text, image, saved))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            broken.append(f"entry {number} ({type(error).__name__}: {error})")
    if broken:
        entries = count(len(broken), "entry is not a question", "entries are not questions")
        raise ScoringError(f"{path}: {entries} with id and conversations: {some(broken)}")
    return questions


def parse_answer(text: str, options: Sequence[str] = OPTIONS) -> str:
    """The letter of a reply, or "FAILED": a bare letter, "X. ..." at its start, or one "The answer is X."."""
    if text in options:
        return text
    if text[:1] in options and text[1:3] == ". ":
        return text[0]
    found = _ANSWER_IS.findall(text)
    return found[0] if len(found) == 1 else FAILED


def choice_of(letter: str, problem: Mapping[str, Any], options: Sequence[str] = OPTIONS) -> int:
    """Index of the choice that a letter names; -1 if the problem has no such choice."""
    allowed = options[: len(problem["choices"])]
    return allowed.index(letter) if letter in allowed else -1


def split_problems(problems: Mapping[str, Any], splits: Mapping[str, Any], split: str) -> dict[str, Any]:
    """The problems of a split, by id."""
    if not isinstance(problems, Mapping) or not isinstance(splits, Mapping):
        raise ScoringError("problems.json and pid_splits.json are not ScienceQA's: each holds a JSON object")
    if split not in splits:
        raise ScoringError(f"pid_splits.json has no split {split!r}; it has {', '.join(splits)}")
    if not splits[split]:
        raise ScoringError(f"split {split!r} of pid_splits.json is empty: there is nothing to score against")
    absent = [pid for pid in splits[split] if str(pid) not in problems]
    if absent:
        raise ScoringError(f"problems.json lacks {count(len(absent), 'problem')} of {split}: {some(map(str, absent))}")
    found = {str(pid): problems[str(pid)] for pid in splits[split]}
    broken = [pid for pid, problem in found.items() if not _is_problem(problem)]
    if broken:
        bare = f"{count(len(broken), 'problem')} of {split} without choices, or without an answer among them"
        raise ScoringError(f"problems.json: {bare}: {some(broken)}")
    return found


def _is_problem(problem: Any) -> bool:
    match problem:
        case {"choices": list(choices), "answer": int(answer)}:
            return 0 <= answer < len(choices)
    return False


def score(
    answers: Sequence[Mapping[str, Any]], problems: Mapping[str, Any], options: Sequence[str] = OPTIONS, **pairing: Any
) -> Report:
    """The headline is that of the questions with an image, if any. `problems`: by id, as in problems.json."""
    paired = pair(answers, problems, **pairing)
    hits = [
        float(r.text is not None and choice_of(parse_answer(r.text, options), r.truth, options) == r.truth["answer"])
        for r in paired.replies
    ]
    subjects = [reply.truth.get("subject") for reply in paired.replies]
    on_images = {reply.key: hit for reply, hit in zip(paired.replies, hits, strict=True) if has_image(reply)}
    blind = [reply.key for reply in paired.replies if reply.line and has_image(reply) and not _asked_with_image(reply)]
    if blind:
        asked = count(len(blind), "question with an image was", "questions with an image were")
        blind = [f"{asked} asked without {DEFAULT_IMAGE_TOKEN}: {some(blind)}"]
    metrics, changes = {}, {}
    if on_images:
        metrics["image_accuracy"], changes["per_question"] = Measure.of(list(on_images.values())), on_images
    return Report.of(
        "scienceqa",
        paired,
        hits,
        metrics | {"accuracy": Measure.of(hits)},
        **changes,
        parse_failures=sum(parse_answer(line["text"], options) == FAILED for line in answers),
        groups={"subject": group(subjects, hits)} if all(subjects) else {},
        details={"rule": "LLaVA's eval_science_qa"},
        warnings=paired.warnings + blind,
    )


def has_image(reply: Reply) -> bool:
    """Whether the problem has an image; upstream looks for the image token in the saved prompt."""
    return bool(reply.truth["image"]) if "image" in reply.truth else _asked_with_image(reply)


def _asked_with_image(reply: Reply) -> bool:
    return DEFAULT_IMAGE_TOKEN in (reply.line or {}).get("prompt", "")


def upstream_outputs(
    replies: Sequence[Reply], options: Sequence[str] = OPTIONS
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Contents of upstream's --output-file and --output-result (with the image counts that Bunny adds)."""
    sorted_out: dict[str, list[dict[str, Any]]] = {"correct": [], "incorrect": []}
    results, outputs = {}, {}
    for reply in replies:
        text = FAILED if reply.text is None else reply.text
        letter = parse_answer(text, options)
        results[reply.key], outputs[reply.key] = choice_of(letter, reply.truth, options), text
        right = reply.text is not None and results[reply.key] == reply.truth["answer"]
        entry = {
            "question_id": reply.key,
            "parsed_ans": letter,
            "ground_truth": options[reply.truth["answer"]],
            "question": (reply.line or {}).get("prompt", "Unknown"),
            "pred": text,
            "is_multimodal": has_image(reply),
        }
        sorted_out["correct" if right else "incorrect"].append(entry)
    right, count = len(sorted_out["correct"]), len(replies)
    image_right = sum(entry["is_multimodal"] for entry in sorted_out["correct"])
    image_count = sum(map(has_image, replies))
    result = {"acc": 100 * right / count, "correct": right, "count": count}
    result["image_acc"] = 100 * image_right / image_count if image_count else None
    result |= {"image_correct": image_right, "image_count": image_count, "results": results, "outputs": outputs}
    return sorted_out, result


def add_score_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base-dir", required=True, help=f"folder of {SPLITS} and {PROBLEMS}")
    parser.add_argument("--output-file", help="upstream's list of right and wrong answers")
    parser.add_argument("--output-result", help="upstream's result file")
    parser.add_argument("--split", default="test")
    parser.add_argument("--options", nargs="+", default=list(OPTIONS))


def read_truths(args: argparse.Namespace) -> dict[str, Any]:
    base = Path(args.base_dir)
    return split_problems(read_json(base / PROBLEMS), read_json(base / SPLITS), args.split)


SORTED = FileKind("a list of right and wrong answers", keys=frozenset({"correct", "incorrect"}))
RESULT = FileKind("a result file", keys=frozenset({"acc", "results", "outputs"}))


def outputs(args: argparse.Namespace) -> Outputs:
    return {"--output-file": (args.output_file, SORTED), "--output-result": (args.output_result, RESULT)}


def finish(args: argparse.Namespace, report: Report, file: str | Path) -> None:
    sorted_out, result = upstream_outputs(report.replies, args.options)
    if args.output_file:
        write_json(args.output_file, sorted_out)
    if args.output_result:
        write_json(args.output_result, result)
    image = "" if result["image_acc"] is None else f", IMG-Accuracy: {result['image_acc']:.2f}%"
    print(f"Total: {result['count']}, Correct: {result['correct']}, Accuracy: {result['acc']:.2f}%{image}")


SCIENCEQA = Benchmark(
    name="scienceqa",
    column="ScienceQA",
    questions=QUESTIONS,
    annotations=(SPLITS, PROBLEMS),
    prepare=prepare,
    score=score,
    program="model_vqa_science",
    images="{data}/images/test",
    answer_flags=("--single-pred-prompt",),
    score_flags=(
        *("--base-dir", "{data}", "--question-file", "{questions}"),
        *("--output-file", "{answers_stem}_output.json", "--output-result", "{answers_stem}_result.json"),
    ),
    published=PUBLISHED,
    count=lambda problems, args: len(problems) if args.split == "test" else None,
    add_score_flags=add_score_flags,
    read_truths=read_truths,
    read_asked=lambda path: asked_ids(path, "id"),
    options=lambda args: {"options": args.options},
    outputs=outputs,
    finish=finish,
)
