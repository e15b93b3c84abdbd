"""Converts easy-VQA from its wheel to LLaVA JSON and to question files."""

import json
import random
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from llava.eval.benchmarks.easy_vqa import COLOURS, SHAPES, blind_baseline, kind_of
from llava.files import folder_written_whole, write_json
from playground.embedded.wheels import wheel_folder

NUMBERS = 3, 3, 2
"""Affirming, denying and asking questions per conversation.

Most questions of a random draw are denying ones; trained on such a draw, yes/no accuracy stays at the blind baseline.
"""
SAMPLE = 1200


class Question(NamedTuple):
    text: str
    answer: str
    image: int


def read_questions(split: str) -> list[Question]:
    path = wheel_folder("easy_vqa") / "data" / split / "questions.json"
    return [Question(*item) for item in json.loads(path.read_text())]


def by_image(questions: list[Question]) -> dict[int, list[Question]]:
    groups: dict[int, list[Question]] = defaultdict(list)
    for question in questions:
        groups[question.image].append(question)
    return groups


def attributes(questions: list[Question]) -> tuple[str | None, str | None]:
    """Shape and colour of an image, read from the questions about it; None if they do not contain it."""
    found: set[str] = set()
    for question in questions:
        if question.answer not in ("yes", "no"):
            # "what is the blue shape?" names the colour, "what color is the circle?" the shape.
            found |= {question.answer, *_words(question)}
    shape = next((word for word in SHAPES if word in found), None)
    return shape, next((word for word in COLOURS if word in found), None)


def prepare_training(folder: Path, seed: int) -> None:
    """Writes images, `pretrain.json` (captions) and `finetune.json` (conversations) to `folder`."""
    rng = random.Random(seed)
    captions, conversations = [], []
    for image, questions in sorted(by_image(read_questions("train")).items()):
        shape, colour = attributes(questions)
        if shape is None or colour is None:
            continue
        path = f"train/{image}.png"
        captions.append(item(f"caption-{image}", path, [("<image>", f"{colour} {shape}")]))
        chosen = draw(questions, {shape, colour}, rng)
        turns = [(f"<image>\n{q.text}" if i == 0 else q.text, q.answer) for i, q in enumerate(chosen)]
        conversations.append(item(f"train-{image}", path, turns))
    with folder_written_whole(folder) as aside:
        for split in ("train", "test"):
            shutil.copytree(wheel_folder("easy_vqa") / "data" / split / "images", aside / "images" / split)
        write_json(aside / "pretrain.json", captions)
        write_json(aside / "finetune.json", conversations)


def prepare_evaluation(folder: Path, seed: int) -> None:
    """Writes question files, annotations and the blind baseline to `folder`.

    `questions.jsonl` is the whole test set, `questions_1200.jsonl` a random sample of it, and
    `questions_wrong_image.jsonl` the same sample with images of another shape and another colour.
    """
    rng = random.Random(seed)
    test, train = read_questions("test"), read_questions("train")
    looks = {image: attributes(questions) for image, questions in by_image(test).items()}
    sample = sorted(rng.sample(range(len(test)), SAMPLE))

    def lines(indices: Iterable[int], wrong: bool = False) -> str:
        rows = []
        for i in indices:
            image = _other_image(looks, test[i].image, rng) if wrong else test[i].image
            row = {"question_id": i, "image": f"test/{image}.png", "text": test[i].text}
            rows.append(json.dumps(row | {"category": kind_of(test[i].answer)}) + "\n")
        return "".join(rows)

    with folder_written_whole(folder) as aside:
        (aside / "questions.jsonl").write_text(lines(range(len(test))))
        (aside / f"questions_{SAMPLE}.jsonl").write_text(lines(sample))
        (aside / "questions_wrong_image.jsonl").write_text(lines(sample, wrong=True))
        write_json(aside / "annotations.json", {str(i): q.answer for i, q in enumerate(test)})
        pairs = [(q.text, q.answer) for q in train]
        asked = {"sample": [test[i] for i in sample], "test": test}
        blind = {name: blind_baseline(pairs, [(q.text, q.answer) for q in part]) for name, part in asked.items()}
        write_json(aside / "blind.json", blind)


def _words(question: Question) -> set[str]:
    return set(question.text.rstrip("?").split())


def draw(
    questions: list[Question], true: set[str], rng: random.Random, numbers: tuple[int, int, int] = NUMBERS
) -> list[Question]:
    """Random questions about one image: of each kind at most so many as `numbers` says."""
    closed = [q for q in questions if q.answer in ("yes", "no")]
    affirming = [q for q in closed if _words(q) & true]
    denying = [q for q in closed if not _words(q) & true]
    asking = [q for q in questions if q.answer not in ("yes", "no")]
    chosen = []
    for kind, most in zip((affirming, denying, asking), numbers, strict=True):
        chosen += rng.sample(kind, min(most, len(kind)))
    rng.shuffle(chosen)
    return chosen


def _other_image(looks: dict[int, tuple[str | None, str | None]], image: int, rng: random.Random) -> int:
    images = list(looks)
    while True:
        other = rng.choice(images)
        differ = all(a and b and a != b for a, b in zip(looks[other], looks[image], strict=True))
        if differ or (not all(looks[image]) and other != image):
            return other


def item(name: str, image: str | None, turns: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """A sample of LLaVA's JSON."""
    conversation = [
        {"from": role, "value": text} for turn in turns for role, text in zip(("human", "gpt"), turn, strict=True)
    ]
    return {"id": name} | ({"image": image} if image else {}) | {"conversations": conversation}
