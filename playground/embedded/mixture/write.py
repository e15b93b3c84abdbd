"""Writes the mixture: LLaVA JSON for both stages, and the question files of the benchmark `mixture`."""

import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from llava.eval.benchmarks.easy_vqa import common_answers
from llava.eval.benchmarks.mixture import score
from llava.files import folder_written_whole, write_json
from playground.embedded.easy_vqa import item
from playground.embedded.mixture.digits import digits
from playground.embedded.mixture.easy import easy
from playground.embedded.mixture.pictures import Picture
from playground.embedded.mixture.scenes import scenes
from playground.embedded.mixture.texts import conversation
from playground.embedded.mixture.words import words
from playground.embedded.wheels import wheel_folder

# Pictures of each task: captions of stage 1, conversations of stage 2, the test. Stage 2 has pictures of stage 1, as in
# LLaVA's mix. In the test, a scene is asked about twice: a count and a place.
SIZES = {easy: (700, 120, 200), digits: (1500, 180, 200), scenes: (2200, 400, 200), words: (1500, 180, 200)}
TEXTS = 40
DESCRIPTIONS = "sklearn", "datasets/descr/*.rst"
"""Plain English prose in a wheel: descriptions of data sets, for the perplexity of a text."""
README = Path(__file__).parent / "README.md"


class Mixture(NamedTuple):
    """Pictures by name: stage 1's, stage 2's in random order, and the test's."""

    captions: dict[str, Picture]
    tuned: dict[str, Picture]
    test: dict[str, Picture]


def mixture(seed: int) -> Mixture:
    """The pictures of all tasks; each task has random numbers of its own."""
    found = Mixture({}, {}, {})
    for task, (train, tuned, test) in SIZES.items():
        parts = task(random.Random(f"{seed} {task.__name__}"), train, test)
        found.captions.update(parts.train)
        found.tuned.update(itertools.islice(parts.train.items(), tuned))
        found.test.update(parts.test)
    shuffled = random.Random(seed).sample(list(found.tuned.items()), len(found.tuned))
    return found._replace(tuned=dict(shuffled))


def prepare_training(folder: Path, seed: int) -> None:
    """Writes images, `pretrain.json` (captions), `train.json` (conversations) and the README to `folder`."""
    found = mixture(seed)
    captions = [item(name, place("train", name), [("<image>", p.caption)]) for name, p in found.captions.items()]
    conversations = [
        item(
            name, place("train", name), [("<image>\n" * (i == 0) + a.question, a.answer) for i, a in enumerate(p.asked)]
        )
        for name, p in found.tuned.items()
    ]
    rng = random.Random(f"{seed} texts")
    conversations += [item(f"text-{i}", None, conversation(rng)) for i in range(TEXTS)]
    with folder_written_whole(folder) as aside:
        for part, pictures in (("train", found.captions), ("test", found.test)):
            (aside / "images" / part).mkdir(parents=True)
            for name, p in pictures.items():
                (aside / "images" / place(part, name)).write_bytes(p.png)
        write_json(aside / "pretrain.json", captions)
        write_json(aside / "train.json", conversations)
        (aside / README.name).write_text(README.read_text(encoding="utf-8"), encoding="utf-8")


def place(part: str, name: str) -> str:
    """A picture's file below the folder of images."""
    return f"{part}/{name}.png"


def prepare_evaluation(folder: Path, seed: int) -> None:
    """Writes questions, the same with wrong images, annotations, the score of the blind baseline, and a text.

    The blind baseline gives the most common answer of stage 2 to each question, for a new question that of its task.
    """
    found = mixture(seed)
    asked = [(f"{name}-{i}", name, a) for name, p in found.test.items() for i, a in enumerate(p.asked)]
    rng = random.Random(f"{seed} wrong images")
    wrong = [
        rng.choice([other for other, p in found.test.items() if p.is_wrong_for(a, found.test[name])])
        for _, name, a in asked
    ]

    def lines(names: Iterable[str]) -> str:
        rows = [
            {"question_id": key, "image": place("test", name), "text": a.question, "category": a.task}
            for (key, _, a), name in zip(asked, names, strict=True)
        ]
        return "".join(json.dumps(row) + "\n" for row in rows)

    annotations = {key: {"task": a.task, "answer": a.answer} for key, _, a in asked}
    learned = [a for p in found.tuned.values() for a in p.asked]
    usual = common_answers((a.task, a.answer) for a in learned) | common_answers(
        (a.question, a.answer) for a in learned
    )
    guesses = {key: usual.get(a.question, usual[a.task]) for key, _, a in asked}
    blind = [{"question_id": key, "text": text, "model_id": "blind"} for key, text in guesses.items()]
    package, pattern = DESCRIPTIONS
    texts = [file.read_text(encoding="utf-8") for file in sorted(wheel_folder(package).glob(pattern))]
    with folder_written_whole(folder) as aside:
        (aside / "questions.jsonl").write_text(lines(name for _, name, _ in asked))
        (aside / "questions_wrong_image.jsonl").write_text(lines(wrong))
        write_json(aside / "annotations.json", annotations)
        score(blind, annotations).write(aside / "blind.json")
        (aside / "descriptions.txt").write_text("\n".join(texts), encoding="utf-8")
