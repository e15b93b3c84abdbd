"""easy-VQA: one shape on a picture; its kind, its colour, and yes or no."""

import random
from collections.abc import Iterator

from playground.embedded.easy_vqa import attributes, by_image, draw, read_questions
from playground.embedded.mixture.pictures import Asked, Parts, Picture, parts
from playground.embedded.wheels import wheel_folder

KIND = "easy"
NUMBERS = 1, 1, 2
"""Affirming, denying and asking questions about a training picture."""


def pictures(split: str, rng: random.Random) -> Iterator[Picture]:
    """The pictures of a split in random order; of the test, each with one yes/no question and one asking question.

    Half of the yes/no questions are affirming ones: of a random draw of the package's questions, most are denying.
    """
    asked_about = sorted(by_image(read_questions(split)).items())
    folder = wheel_folder("easy_vqa") / "data" / split / "images"
    for i, (image, questions) in enumerate(rng.sample(asked_about, len(asked_about))):
        shape, colour = attributes(questions)
        if shape is None or colour is None:
            continue
        numbers = NUMBERS if split == "train" else (1 - i % 2, i % 2, 1)
        asked = [Asked(KIND, q.text, q.answer) for q in draw(questions, {shape, colour}, rng, numbers)]
        if split == "test" and len(asked) < 2:
            # Some pictures have no question of a kind.
            continue
        png = (folder / f"{image}.png").read_bytes()
        yield Picture(KIND, png, f"{colour} {shape}", tuple(asked), looks=frozenset((shape, colour)))


def easy(rng: random.Random, train: int, test: int) -> Parts:
    return parts(pictures("train", rng), pictures("test", rng), (train, test))
