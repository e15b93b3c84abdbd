"""easy-VQA: one shape on a picture; its kind and its colour."""

import random
from collections.abc import Iterator

from playground.embedded.easy_vqa import attributes, by_image, draw, read_questions
from playground.embedded.mixture.pictures import Asked, Parts, Picture, parts
from playground.embedded.wheels import wheel_folder

KIND = "easy"
TRAIN, TEST = (0, 0, 2), (0, 0, 1)
"""Affirming, denying and asking questions about a picture. The README says why there is no yes or no."""


def pictures(split: str, rng: random.Random) -> Iterator[Picture]:
    """The pictures of a split in random order, with two questions about each, in the test with one."""
    asked_about = sorted(by_image(read_questions(split)).items())
    folder = wheel_folder("easy_vqa") / "data" / split / "images"
    for image, questions in rng.sample(asked_about, len(asked_about)):
        shape, colour = attributes(questions)
        if shape is None or colour is None:
            continue
        drawn = draw(questions, {shape, colour}, rng, TRAIN if split == "train" else TEST)
        asked = [Asked(KIND, q.text, q.answer) for q in drawn]
        png = (folder / f"{image}.png").read_bytes()
        yield Picture(KIND, png, f"{colour} {shape}", tuple(asked), looks=frozenset((shape, colour)))


def easy(rng: random.Random, train: int, test: int) -> Parts:
    return parts(pictures("train", rng), pictures("test", rng), (train, test))
