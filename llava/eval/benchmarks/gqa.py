"""GQA, test-dev balanced: accuracy by the official rules, without the files that the v1.2 download lacks.

The official script's flags `--tier`, `--questions` and `--predictions` are accepted too; its validity, plausibility and
consistency need scene graphs, choices and all questions, and are not computed.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmarks.base import Benchmark, Published
from llava.eval.benchmarks.parquet import Split, find_split, unpack, write_made
from llava.eval.benchmarks.preparing import SHORT, Options, PrepareError, check_count, find, question, set_up
from llava.eval.scoring.pairing import Answers, ScoringError, expecting, pair, read_answers, read_json
from llava.eval.scoring.report import Measure, Report, group
from llava.files import write_json
from llava.flags import Parser
from llava.outputs import FileKind, check_files

QUESTIONS = "llava_gqa_testdev_balanced.jsonl"
TIER = "testdev_balanced"
ANNOTATIONS, IMAGES = f"data/{TIER}_questions.json", "data/images"
PUBLISHED = Published(12578, "questions")
HUB = ("id", "imageId", "question", "answer", "isBalanced", "groups", "types", "semantic")
"""Columns of lmms-lab/GQA."""
# Steps that ask for the answer and do not lengthen the reasoning.
_ASKING = ("exist", "query: name", "choose name")


def from_hub(split: Split, raw: Path, out: Path, options: Options) -> Path:
    """Writes the official file and the images from the Hub's lmms-lab/GQA; returns their folder."""
    check_count(PUBLISHED, len(split), options)
    images = find_split(find(raw, f"{TIER}_images"), "testdev")
    if images is None:
        raise PrepareError(f"{raw}/{TIER}_images holds no parquet file of the split testdev")
    unpack(images, ["id"], out / IMAGES, lambda _, row: f"{row['id']}.jpg")
    questions = {row.pop("id"): row for row in split.rows(*HUB)}
    write_made(out / ANNOTATIONS, json.dumps(questions), options)
    return out


def prepare(raw: Path, out: Path, options: Options) -> int:
    if hub := find_split(raw, "testdev", f"{TIER}_instructions"):
        raw = from_hub(hub, raw, out, options)
    source = find(raw, f"{TIER}_questions.json", ANNOTATIONS)
    images = find(raw, "images", IMAGES)
    questions = read_json(source)
    with expecting(f"{source} is not GQA's file of questions"):
        rows = [question(qid, f"{e['imageId']}.jpg", f"{e['question']}\n{SHORT}") for qid, e in questions.items()]
    check_count(PUBLISHED, len(rows), options)
    return set_up(out, {ANNOTATIONS: source, IMAGES: images}, QUESTIONS, rows, options, images)


def normalise(text: str) -> str:
    """The form that is compared (upstream's convert_gqa_for_eval)."""
    return text.rstrip(".").lower()


def score(answers: Answers, questions: Mapping[str, Mapping[str, Any]], **pairing: Any) -> Report:
    """Accuracy over the balanced questions of a tier's official file: the reply must equal the answer."""
    with expecting("the questions are not in GQA's official form"):
        balanced = {qid: entry for qid, entry in questions.items() if entry["isBalanced"]}
        extra = set(questions) - set(balanced)
        answers = [line for line in answers if str(line["question_id"]) not in extra]
        paired = pair(answers, balanced, **pairing)
        said = [None if r.text is None else normalise(r.text) for r in paired.replies]
        truths = [reply.truth for reply in paired.replies]
        hits = [float(text == truth["answer"]) for text, truth in zip(said, truths, strict=True)]
        structural = [truth["types"]["structural"] for truth in truths]
        groups = {
            "structural type": group(structural, hits),
            "semantic type": group([truth["types"]["semantic"] for truth in truths], hits),
            "steps": group([f"{steps(truth):02d}" for truth in truths], hits),
            "words": group([f"{len(truth['question'].split()):02d}" for truth in truths], hits),
        }
    kinds = ["open" if kind == "query" else "binary" for kind in structural]
    metrics = {"accuracy": Measure.of(hits)} | group(kinds, hits)
    details = {"rule": "GQA official, strict equality", "distribution": distribution(truths, said)}
    return Report.of("gqa", paired, hits, metrics, groups=groups, details=details)


def steps(entry: Mapping[str, Any]) -> int:
    """Reasoning steps of a question, without the one that asks."""
    texts = (f"{step['operation']}: {step['argument']}" for step in entry["semantic"])
    return sum(not any(word in text for word in _ASKING) for text in texts)


def distribution(truths: Sequence[Mapping[str, Any]], said: Sequence[str | None]) -> float | None:
    """Chi-square between given and true answers within each global group, weighted by size; lower is better.

    The official script divides it by 100.
    """
    gold, given = defaultdict(Counter), defaultdict(Counter)
    for truth, text in zip(truths, said, strict=True):
        name = (truth.get("groups") or {}).get("global")
        if name is not None:
            gold[name][truth["answer"]] += 1
            given[name][text] += 1
    if not gold:
        return None
    weighted = 0.0
    for name, counts in gold.items():
        weighted += counts.total() * sum((given[name][answer] - n) ** 2 / n for answer, n in counts.items())
    return weighted / sum(counts.total() for counts in gold.values()) / 100


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Answers in JSON lines, or predictions (questionId, prediction) as convert_gqa_for_eval writes them."""
    if Path(path).suffix != ".json":
        return read_answers(path)
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise ScoringError(f"{path} holds no list of predictions")
    with expecting(f"{path}: each prediction needs questionId and prediction"):
        return [{"question_id": row["questionId"], "text": row["prediction"]} for row in rows]


PREDICTIONS = FileKind("a list of predictions", keys=frozenset({"questionId", "prediction"}))


def convert_main() -> None:
    parser = Parser(description="Turn GQA answers into predictions for the official script")
    parser.add_argument("--src", required=True, help="answers in JSON lines")
    parser.add_argument("--dst", required=True, help="list of questionId and prediction")
    args = parser.parse_args()
    check_files({"--dst": (args.dst, PREDICTIONS)}, [args.src])
    predictions = [
        {"questionId": str(line["question_id"]), "prediction": normalise(line["text"])}
        for line in read_answers(args.src)
    ]
    write_json(args.dst, predictions)


def add_score_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--annotation-file", "--questions", default="{tier}_questions.json", help="default: %(default)s"
    )
    parser.add_argument("--predictions", default="{tier}_predictions.json", help="the official name of --result-file")
    parser.add_argument("--tier", default=TIER)


def finish(args: argparse.Namespace, report: Report, file: str | Path) -> None:
    value = report.details["distribution"]
    print("Distribution: " + ("none" if value is None else f"{value:.2f} (lower is better)"))


GQA = Benchmark(
    name="gqa",
    column="GQA",
    questions=QUESTIONS,
    annotations=(ANNOTATIONS,),
    prepare=prepare,
    score=score,
    images="{data}/data/images",
    answer_flags=("--max_new_tokens", "128"),
    answers="answers/{stem}/{name}/merge.jsonl",
    convert=("llava.eval.convert_gqa", "--src", "{answers}", "--dst", f"{{answers_folder}}/{TIER}_predictions.json"),
    published=PUBLISHED,
    count=lambda questions, args: len(questions) if args.tier == TIER else None,
    add_score_flags=add_score_flags,
    result_files=lambda args: [args.result_file or args.predictions.format(tier=args.tier)],
    read_truths=lambda args: read_json(args.annotation_file.format(tier=args.tier)),
    read_answers=read_predictions,
    finish=finish,
)
