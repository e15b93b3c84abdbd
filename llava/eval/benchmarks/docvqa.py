"""DocVQA (task 1), validation: ANLS, which is the benchmark's own rule and Qwen-VL's; relaxed and exact accuracy.

The paper's rule is not published. Its percentages are not those of a right-or-wrong rule over 5,349 questions.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llava.eval.benchmarks.base import Benchmark, Published
from llava.eval.benchmarks.parquet import Split, find_split, unpack, write_made
from llava.eval.benchmarks.preparing import SHORT, Options, check_count, find, question, set_up
from llava.eval.benchmarks.training import Sample, Source, Training, items, most_common, parquet_samples
from llava.eval.scoring.pairing import Answers, ScoringError, expecting, read_json
from llava.eval.scoring.report import Report, group
from llava.eval.scoring.rules import anls, exact, relaxed_correctness
from llava.eval.scoring.short_answers import UNPUBLISHED, score_short_answers
from llava.names import count, some

ANNOTATIONS, IMAGES = "val_v1.0_withQT.json", "documents"
PUBLISHED = Published(5349, "questions")
SPLITS = {"train": Published(39463, "questions"), "val": PUBLISHED}
"""Those with answers."""
HUB = (
    *("questionId", "question", "question_types", "docId", "ucsf_document_id", "ucsf_document_page_no", "answers"),
    "data_split",
)
"""Columns of lmms-lab/DocVQA."""
RULES = {"anls": anls, "relaxed": relaxed_correctness, "exact": exact}


def entries_of(annotations: Mapping[str, Any], split: str = "val") -> dict[str, dict[str, Any]]:
    """Question id -> entry of the official file."""
    with expecting("the annotations are not a DocVQA file of questions"):
        entries = {str(entry["questionId"]): entry for entry in annotations["data"]}
        found = {entry.get("data_split", split) for entry in entries.values()}
    if found - {split}:
        raise ScoringError(f"the annotations are of split {', '.join(sorted(found))}, not {split}")
    bare = [key for key, entry in entries.items() if not entry.get("answers")]
    if bare:
        without = count(len(bare), "annotation has", "annotations have")
        raise ScoringError(f"{without} no answers (the test split has none): {some(bare)}")
    return entries


def from_hub(split: Split, out: Path, options: Options) -> Path:
    """Writes the official file and the pages from the Hub's lmms-lab/DocVQA; returns their folder."""
    check_count(PUBLISHED, len(split), options)
    rows = unpack(split, HUB, out / IMAGES, lambda _, r: f"{r['ucsf_document_id']}_{r['ucsf_document_page_no']}.png")
    data = [row | {"questionId": int(row["questionId"]), "image": f"{IMAGES}/{row['image']}"} for row in rows]
    write_made(out / ANNOTATIONS, json.dumps({"dataset_split": "val", "data": data}), options)
    return out


def prepare(raw: Path, out: Path, options: Options) -> int:
    if hub := find_split(raw, "validation", "DocVQA"):
        raw = from_hub(hub, out, options)
    source = find(raw, *_files("val"))
    images = find(raw, IMAGES, "spdocvqa_images", "val/documents")
    entries = entries_of(read_json(source)).values()
    check_count(PUBLISHED, len(entries), options)
    rows = [question(e["questionId"], Path(e["image"]).name, f"{e['question']}\n{SHORT}") for e in entries]
    return set_up(out, {ANNOTATIONS: source, IMAGES: images}, "questions.jsonl", rows, options, images)


def open_split(raw: Path, out: Path, split: str, options: Options) -> Source | None:
    """A split with answers: the official file, or the Hub's (HuggingFaceM4/DocumentVQA has the training split)."""
    if hub := find_split(raw, {"val": "validation"}.get(split, split), "DocVQA"):

        def of_row(number: int, row: dict[str, Any]) -> Iterator[Sample]:
            yield _sample(row | {"image": f"{row['ucsf_document_id']}_{row['ucsf_document_page_no']}.png"})

        columns = ("questionId", "question", "ucsf_document_id", "ucsf_document_page_no", "answers")
        return Source(out / IMAGES, lambda i: parquet_samples(hub, columns, i, of_row), SPLITS[split], True)
    source = next((raw / file for file in _files(split) if (raw / file).is_file()), None)
    if source is None:
        return None
    images = find(raw, IMAGES, "spdocvqa_images", f"{split}/{IMAGES}")
    return Source(images, lambda _: map(_sample, items(source, "data", "DocVQA's file of answers")), SPLITS[split])


def _files(split: str) -> list[str]:
    """The places of a split's official file in a download, the newest first."""
    names = (f"{split}_v1.0_withQT.json", f"{split}_v1.0.json")
    return [folder + name for name in names for folder in ("", f"{split}/", "spdocvqa_qas/")]


def _sample(entry: Mapping[str, Any]) -> Sample:
    with expecting("an entry is not DocVQA's, or has no answers"):
        key, image, text = str(entry["questionId"]), Path(entry["image"]).name, f"{entry['question']}\n{SHORT}"
        return Sample(key, image, text, most_common(entry["answers"]), entry.get("content"))


def score(answers: Answers, annotations: Mapping[str, Any], split: str = "val", **pairing: Any) -> Report:
    """ANLS, relaxed and exact accuracy. `annotations` is the content of the official file."""
    entries = entries_of(annotations, split)
    references = {key: [str(answer) for answer in entry["answers"]] for key, entry in entries.items()}
    details = {"split": split, "anls_threshold": 0.5, "paper": UNPUBLISHED}
    report = score_short_answers("docvqa", answers, references, RULES, details=details, **pairing)
    # A question may be of several types; older official files have none.
    kinds = [(kind, v) for key, v in report.per_question.items() for kind in entries[key].get("question_types") or []]
    if kinds:
        report.groups["question type"] = group(*zip(*kinds, strict=True))
    return report


DOCVQA = Benchmark(
    name="docvqa",
    column="DocVQA",
    annotations=(ANNOTATIONS,),
    prepare=prepare,
    score=score,
    rule="anls",
    images="{data}/documents",
    answer_flags=("--max_new_tokens", "100"),
    published=PUBLISHED,
    count=lambda annotations, args: len(annotations["data"]) if args.split == "val" else None,
    annotation_help="val_v1.0_withQT.json or val_v1.0.json",
    add_score_flags=lambda parser: parser.add_argument("--split", default="val"),
    options=lambda args: {"split": args.split},
)
DOCVQA_TRAINING = Training(open_split, tuple(SPLITS), "val", (*_files("train"), *_files("val")))
