"""TextVQA, validation: accuracy by the rules of LLaVA's evaluation (M4C's soft accuracy).

Image ids are not unique: an answer's question is found by the image and by the question's text in the saved prompt.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.benchmarks.base import Benchmark, Published
from llava.eval.benchmarks.parquet import Split, find_split, unpack, write_made
from llava.eval.benchmarks.preparing import SHORT, Options, check_count, find, question, set_up
from llava.eval.m4c_evaluator import TextVQAAccuracyEvaluator
from llava.eval.scoring.pairing import Answers, Reply, ScoringError, expecting, pair, read_json, read_questions
from llava.eval.scoring.report import Measure, Report

QUESTIONS = "llava_textvqa_val_v051{}.jsonl"
ANNOTATIONS, IMAGES = "TextVQA_0.5.1_val.json", "train_images"
TOKENS = "TextVQA_Rosetta_OCR_v0.2_val.json"
PUBLISHED = Published(5000, "questions")
HUB = ("image_id", "question_id", "question", "answers", "set_name", "ocr_tokens")
"""Columns of lmms-lab/textvqa."""
OCR_LINE = "Reference OCR token:"
_SHORT_ANSWER = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)
# Image, question in lower case, and which of several equal questions it is.
Key = tuple[str, str, int]


def from_hub(split: Split, out: Path, options: Options) -> Path:
    """Writes the official files and the images from the Hub's lmms-lab/textvqa; returns their folder."""
    check_count(PUBLISHED, len(split), options)
    rows = unpack(split, HUB, out / IMAGES, lambda _, row: f"{row['image_id']}.jpg")
    tokens = {row["image_id"]: row["ocr_tokens"] for row in rows}
    entries = [{name: value for name, value in row.items() if name not in ("image", "ocr_tokens")} for row in rows]
    tokens_of = [{"image_id": image, "ocr_tokens": found} for image, found in tokens.items()]
    write_made(out / ANNOTATIONS, json.dumps({"data": entries}), options)
    write_made(out / TOKENS, json.dumps({"data": tokens_of}), options)
    return out


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes upstream's llava_textvqa_val_v051_ocr.jsonl, or without OCR tokens llava_textvqa_val_v051.jsonl."""
    if hub := find_split(raw, "validation"):
        raw = from_hub(hub, out, options)
    source = find(raw, ANNOTATIONS)
    images = find(raw, IMAGES, "train_val_images/train_images")
    tokens = load_tokens(find(raw, TOKENS)) if options.ocr else None
    with expecting(f"{source} is not TextVQA's file, or not of the same split as the tokens"):
        rows = [
            question(image, f"{image}.jpg", prompt(entry["question"], None if tokens is None else tokens[image]))
            for entry in read_json(source)["data"]
            for image in [entry["image_id"]]
        ]
    check_count(PUBLISHED, len(rows), options)
    name = QUESTIONS.format("_ocr" if options.ocr else "")
    # Image ids are not unique; upstream's own file may write the tokens otherwise.
    return set_up(out, {ANNOTATIONS: source, IMAGES: images}, name, rows, options, images, key=question_of)


def question_of(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["question_id"], prompt_processor(row["text"])


def prompt(text: str, tokens: list[str] | None) -> str:
    """The question on a line of its own, which the scorer needs, and the tokens in one line."""
    lines = [" ".join(text.split("\n"))]
    if tokens is not None:
        lines.append(f"{OCR_LINE} {', '.join(' '.join(token.split()) for token in tokens)}")
    return "\n".join([*lines, SHORT])


def load_tokens(path: Path) -> dict[str, list[str]]:
    with expecting(f"{path} is not TextVQA's file of OCR tokens"):
        return {entry["image_id"]: entry["ocr_tokens"] for entry in read_json(path)["data"]}


def prompt_processor(prompt: str) -> str:
    """The question, in lower case, of a saved prompt in one of upstream's three forms."""
    prompt = prompt.removeprefix(f"{DEFAULT_IMAGE_TOKEN}\n")
    lines = prompt.split("\n")
    question = None
    if prompt.startswith("OCR tokens: "):
        found = _SHORT_ANSWER.search(prompt)
        question = found and found[1]
    elif "Reference OCR token: " in prompt and len(lines) == 3:
        question = lines[1] if prompt.startswith(OCR_LINE) else lines[0]
    elif len(lines) == 2:
        question = lines[0]
    if question is None:
        place = f"before or after a line {OCR_LINE!r}, followed by the line that asks for a short answer"
        raise ScoringError(
            f"no question is found in the prompt {prompt[:120]!r}; it must be on a line of its own, {place}"
        )
    return question.lower()


def score(answers: Answers, annotations: Answers, asked: Answers | None = None, missing: str = "error") -> Report:
    """TextVQA accuracy.

    Args:
        answers: `question_id` is the image's; with `prompt`.
        annotations: entries of the official file's `data`: `image_id`, `question`, `question_id`, ten `answers`.
        asked: lines of the question file, if not the whole benchmark was asked.
    """
    truths = dict(zip(_keys(_annotated(entry) for entry in annotations), annotations, strict=True))
    keyed = dict(zip(map(id, answers), _keys(map(_asked, answers)), strict=True))
    wanted = None if asked is None else _keys((str(image), text) for image, text in map(question_of, asked))
    paired = pair(
        answers,
        truths,
        key=lambda line: keyed[id(line)],
        asked=wanted,
        missing=missing,
        name=lambda key: str(truths[key].get("question_id", key)) if key in truths else f"{key[0]} ({key[1]!r})",
    )
    evaluator = TextVQAAccuracyEvaluator()
    scores = [_score(evaluator, reply) for reply in paired.replies]
    with_tokens = sum(OCR_LINE in line["prompt"] or "OCR tokens: " in line["prompt"] for line in answers)
    if 0 < with_tokens < len(answers):
        mixed = f"{with_tokens} of {len(answers)} prompts hold OCR tokens, the others do not"
        raise ScoringError(f"{mixed}; score them apart")
    details = {"rule": "m4c", "prompts": "with OCR tokens" if with_tokens else "without OCR tokens"}
    return Report.of("textvqa", paired, scores, {"accuracy": Measure.of(scores)}, details=details)


def _keys(asked: Iterable[tuple[str, str]]) -> list[Key]:
    seen = Counter()
    keys = []
    for key in asked:
        seen[key] += 1
        keys.append((*key, seen[key]))
    return keys


def _annotated(entry: Mapping[str, Any]) -> tuple[str, str]:
    with expecting("an annotation without image_id and question; expected TextVQA's official file of a split"):
        return str(entry["image_id"]), entry["question"].lower()


def _asked(line: Mapping[str, Any]) -> tuple[str, str]:
    if not isinstance(line.get("prompt"), str):
        raise ScoringError(f"the answer to {line['question_id']} has no prompt, which holds its question")
    return str(line["question_id"]), prompt_processor(line["prompt"])


def _score(evaluator: TextVQAAccuracyEvaluator, reply: Reply) -> float:
    if "answers" not in reply.truth:
        raise ScoringError(f"annotation {reply.key} has no answers; TextVQA's test split holds none, use val")
    try:
        worth = evaluator.answer_scores(reply.truth["answers"])
    except ValueError as error:
        raise ScoringError(f"annotation {reply.key}: {error}") from error
    return 0.0 if reply.text is None else worth.get(evaluator.answer_processor(reply.text), 0.0)


def read_annotations(path: str | Path) -> list[dict[str, Any]]:
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("data"), list):
        raise ScoringError(f"{path} has no list `data`; expected {ANNOTATIONS}")
    return data["data"]


def result_files(args: argparse.Namespace) -> list[Path]:
    if bool(args.result_dir) == bool(args.result_file):
        raise ScoringError("give --result-file or --result-dir, and not both")
    files = [Path(args.result_file)] if args.result_file else sorted(Path(args.result_dir).glob("*.jsonl"))
    if not files:
        raise ScoringError(f"{args.result_dir} holds no .jsonl file")
    if args.report_file and len(files) > 1:
        raise ScoringError("--report-file names one file; with --result-dir each score is written next to its answers")
    return files


def finish(args: argparse.Namespace, report: Report, file: str | Path) -> None:
    """Prints upstream's lines."""
    print(f"{Path(file).stem}\nSamples: {report.headline.samples}\nAccuracy: {100 * report.headline.value:.2f}%\n")


TEXTVQA = Benchmark(
    name="textvqa",
    column="TextVQA",
    questions=QUESTIONS.format("_ocr"),
    annotations=(ANNOTATIONS,),
    prepare=prepare,
    score=score,
    images="{data}/train_images",
    answer_flags=("--max_new_tokens", "128"),
    published=PUBLISHED,
    annotation_help=ANNOTATIONS,
    add_score_flags=lambda parser: parser.add_argument("--result-dir", help="score every .jsonl in this folder"),
    result_files=result_files,
    read_truths=lambda args: read_annotations(args.annotation_file),
    read_asked=lambda path: read_questions(path, "question_id", "text") if path else None,
    finish=finish,
)
