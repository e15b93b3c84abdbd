"""Benchmarks made small, in the layout and format of their official downloads, images included."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.conftest import REPOSITORY
from tests.made_mmbench import rotations, write_tsv

# Each function makes a download of `samples` questions in a folder and returns question id -> a reply that is right.
Perfect = dict[str, str]
SAMPLES = REPOSITORY / "tests/data/samples"
BBH = REPOSITORY / "tests/data/bbh/bbh"


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The questions of a file: JSON lines, or a list in JSON."""
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.split("\n") if line]


def draw(path: Path, number: int, size: tuple[int, int] = (30, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, 60)).save(path)


def textvqa(raw: Path, samples: int = 6) -> Perfect:
    entries, tokens = [], []
    for number in range(samples):
        image = f"{number // 2:016x}"
        entries.append(
            {
                "question_id": 34602 + number,
                "image_id": image,
                "question": f"what is word {number}?",
                "answers": [f"word{number}"] * 10,
                "set_name": "val",
            }
        )
        if number % 2 == 0:
            draw(raw / f"train_images/{image}.jpg", number)
            tokens.append({"image_id": image, "ocr_tokens": ["WORD", f"no. {number}"] if number else []})
    write(raw / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": entries})
    write(raw / "TextVQA_Rosetta_OCR_v0.2_val.json", {"dataset_type": "val", "data": tokens})
    return {str(entry["question_id"]): entry["answers"][0] for entry in entries}


def scienceqa(raw: Path, samples: int = 5) -> Perfect:
    problems = {}
    # The last one is of the training split.
    for number in range(samples + 1):
        has_image = number % 2 == 0
        problems[str(number)] = {
            "question": f"Which is {number}?",
            "choices": ["zero", "one", "two"][: 2 + number % 2],
            "answer": number % 2,
            "hint": "Look closely." if number % 3 == 0 else "",
            "image": "image.png" if has_image else None,
            "subject": "natural science",
            "split": "test" if number < samples else "train",
        }
        if has_image:
            draw(raw / f"images/test/{number}/image.png", number)
    write(raw / "problems.json", problems)
    *test, last = problems
    write(raw / "pid_splits.json", {"train": [last], "val": [], "test": test})
    return {pid: "ABC"[problems[pid]["answer"]] for pid in test}


def gqa(raw: Path, samples: int = 6) -> Perfect:
    questions = {}
    for number in range(samples):
        binary = number % 2 == 0
        questions[f"20130725{number}"] = {
            "semantic": [
                {"operation": "select", "dependencies": [], "argument": "shirt (1)"},
                {"operation": "query", "dependencies": [0], "argument": "color"},
            ],
            "entailed": [],
            "equivalent": [],
            "question": "Is it red?" if binary else "What color is it?",
            "imageId": f"n{number // 2}",
            "isBalanced": True,
            "groups": {"global": None if binary else "color", "local": "10-shirt_color"},
            "answer": "no" if binary else "red",
            "types": {
                "detailed": "x",
                "semantic": "attr",
                "structural": "verify" if binary else "query",
            },
            "fullAnswer": "It is.",
        }
        draw(raw / f"images/n{number // 2}.jpg", number // 2)
    write(raw / "testdev_balanced_questions.json", questions)
    return {qid: entry["answer"] for qid, entry in questions.items()}


def mmbench(raw: Path, samples: int = 3) -> Perfect:
    rows = [
        *rotations(241, "B"),
        *rotations(242, "A", ("yes", "no")),
        *rotations(243, "C", ("1", "2", "3"), hint="nan"),
        *(row for number in range(3, samples) for row in rotations(241 + number, "B", ("yes", "no"))),
    ]
    raw.mkdir(parents=True, exist_ok=True)
    write_tsv(raw / "mmbench_dev_20230712.tsv", rows)
    return {row["index"]: row["answer"] for row in rows}


def ocrvqa(raw: Path, samples: int = 6) -> Perfect:
    books, asked = {}, samples // 2
    for number in range(asked + 1):
        books[f"14000{number}"] = {
            "imageURL": f"http://images.example.com/{number}.jpg",
            "questions": ["What year?", "Who wrote this?"],
            "answers": [str(1980 + number), f"Writer {number}"],
            "title": "T",
            "authorName": "W",
            "genre": "G",
            "split": 3 if number < asked else 1,
        }
        if number < asked:
            draw(raw / f"images/14000{number}.jpg", number, (20, 30))
    write(raw / "dataset.json", books)
    return {f"14000{n}_{i}": books[f"14000{n}"]["answers"][i] for n in range(asked) for i in range(2)}


def docvqa(raw: Path, samples: int = 5) -> Perfect:
    entries = []
    for number in range(samples):
        entries.append(
            {
                "questionId": 49153 + number,
                "question": f"What is on page {number}?",
                "question_types": ["handwritten", "form"],
                "image": f"documents/pybv0228_{number}.png",
                "docId": 14465,
                "ucsf_document_id": "pybv0228",
                "ucsf_document_page_no": str(number),
                "answers": [f"{number}.28", f"{number}.280"],
                "data_split": "val",
            }
        )
        draw(raw / f"documents/pybv0228_{number}.png", number, (20, 40))
    write(
        raw / "val_v1.0_withQT.json",
        {"dataset_name": "SP-DocVQA", "dataset_version": "1.0", "dataset_split": "val", "data": entries},
    )
    return {str(entry["questionId"]): entry["answers"][1] for entry in entries}


def refcocog(raw: Path, samples: int = 6) -> Perfect:
    refs, images, annotations = [], [], []
    perfect, asked = {}, samples // 2
    for number in range(asked + 1):
        width, height = (40, 20) if number % 2 else (24, 32)
        name = f"COCO_train2014_{number:012d}.jpg"
        draw(raw / f"train2014/{name}", number, (width, height))
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations.append({"id": 700 + number, "image_id": number, "bbox": [2.0, 4.0, 10.0, 8.0], "category_id": 1})
        sentences = [
            {"sent_id": 10 * number + i, "sent": f"the red one {i}", "raw": "x", "tokens": []} for i in range(2)
        ]
        refs.append(
            {
                "ref_id": number,
                "ann_id": 700 + number,
                "image_id": number,
                "file_name": f"COCO_train2014_{number:012d}_{700 + number}.jpg",
                "category_id": 1,
                "split": "test" if number < asked else "val",
                "sentences": sentences,
                "sent_ids": [s["sent_id"] for s in sentences],
            }
        )
        side = max(width, height)
        left, top = (side - width) // 2, (side - height) // 2
        box = [(2 + left) / side, (4 + top) / side, (12 + left) / side, (12 + top) / side]
        if number < asked:
            perfect |= {str(s["sent_id"]): str(box) for s in sentences}
    write(raw / "instances.json", {"images": images, "annotations": annotations, "categories": []})
    # The published file is a pickle of Python 2.
    (raw / "refs(umd).p").write_bytes(pickle.dumps(refs, protocol=0))
    return perfect


def tdiuc(raw: Path, samples: int = 8) -> Perfect:
    kinds = [("color", "red"), ("counting", "2"), ("absurd", "doesnotapply"), ("object_presence", "yes")]
    questions, annotations = [], []
    for number in range(samples):
        kind, answer = kinds[number % 4]
        questions.append({"question_id": 100 + number, "image_id": number // 2, "question": f"What is {number}?"})
        annotations.append(
            {
                "question_id": 100 + number,
                "image_id": number // 2,
                "question_type": kind,
                "ans_source": "generated",
                "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": 1}],
            }
        )
        draw(raw / f"Images/val2014/COCO_val2014_{number // 2:012d}.jpg", number)
    write(raw / "Questions/OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    write(raw / "Annotations/mscoco_val2014_annotations.json", {"annotations": annotations})
    return {str(entry["question_id"]): entry["answers"][0]["answer"] for entry in annotations}


MAKERS: dict[str, Callable[..., Perfect]] = {
    maker.__name__: maker for maker in (textvqa, scienceqa, gqa, mmbench, ocrvqa, docvqa, refcocog, tdiuc)
}


def bbh(raw: Path, samples: int = 54) -> Perfect:
    """All 27 tasks, with the same number of questions each."""
    perfect, files = {}, sorted(BBH.glob("*.json"))
    for file in files:
        content = json.loads(file.read_text())
        content["examples"] = content["examples"][: samples // len(files)]
        write(raw / file.name, content)
        perfect |= {f"{file.stem}/{i}": example["target"] for i, example in enumerate(content["examples"])}
    return perfect


def mmlu(raw: Path, samples: int = 5) -> Perfect:
    for split, number in (("dev", 5), ("test", samples)):
        (raw / split).mkdir(parents=True)
        rows = [f"is it {i}?,{i},no,red,left,{'ABCD'[i % 4]}\n" for i in range(number)]
        (raw / split / f"anatomy_{split}.csv").write_text("".join(rows))
    return {f"anatomy/{i}": "ABCD"[i % 4] for i in range(samples)}


TEXT_MAKERS: dict[str, Callable[..., Perfect]] = {maker.__name__: maker for maker in (bbh, mmlu)}
