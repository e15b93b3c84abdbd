"""Handwritten digits: scikit-learn's 1,797 images of 8 x 8, scaled up."""

import random
from collections.abc import Iterator

import numpy as np
from PIL import Image

from playground.embedded.mixture.pictures import SIZE, Asked, Parts, Picture, encode, parts
from playground.embedded.wheels import wheel_folder

KIND = "digit"
QUESTION = "Which digit is it?"
INK = 16
"""The largest value of a pixel in the file."""


def read_digits() -> np.ndarray:
    """`(1797, 65)`: 64 pixels of 0 (paper) to 16 (ink), and the digit."""
    return np.loadtxt(wheel_folder("sklearn") / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.int64)


def paint(pixels: np.ndarray) -> Image.Image:
    """64 pixels as dark ink on white paper."""
    shades = (255 - pixels.reshape(8, 8) * 255 / INK).astype(np.uint8)
    return Image.fromarray(shades).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def digits(rng: random.Random, train: int, test: int) -> Parts:
    rows = read_digits()
    order = rng.sample(range(len(rows)), len(rows))

    def pictures(places: list[int]) -> Iterator[Picture]:
        for place in places:
            pixels, name = rows[place, :-1], str(rows[place, -1])
            asked = (Asked(KIND, QUESTION, name),)
            yield Picture(KIND, encode(paint(pixels)), f"digit {name}", asked, {QUESTION: name})

    return parts(pictures(order[test:]), pictures(order[:test]), (train, test))
