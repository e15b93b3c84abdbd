"""Short words in matplotlib's own fonts: to read."""

import random
from collections.abc import Iterator
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from playground.embedded.mixture.pictures import SIZE, Asked, Parts, Picture, background, encode, parts
from playground.embedded.wheels import wheel_folder

KIND = "read"
QUESTION = "Which word is it?"
WORDS = (
    *("bed", "box", "bus", "car", "cat", "cup", "dog", "egg", "fox", "hat"),
    *("ice", "jam", "key", "leg", "map", "net", "owl", "pen", "pig", "sun"),
)
"""Each is one token of SmolLM2's. Pictures are of these words alone, in training and in the test."""
FONTS = ("DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf")
SIZES = (44, 48, 52)
"""In pixels."""
RISE = 16
"""A word is moved up or down by at most so many pixels."""


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(wheel_folder("matplotlib") / "mpl-data/fonts/ttf" / name), size)


def paint(word: str, rng: random.Random) -> Image.Image:
    """The word in a random font, size, shade and place; all of it is inside the picture."""
    image = Image.new("RGB", (SIZE, SIZE), background(rng))
    draw = ImageDraw.Draw(image)
    face = font(rng.choice(FONTS), rng.choice(SIZES))
    left, top, right, bottom = map(round, draw.textbbox((0, 0), word, font=face))
    x = rng.randint(0, max(0, SIZE - (right - left)))
    y = (SIZE - (bottom - top)) // 2 + rng.randint(-RISE, RISE)
    draw.text((x - left, y - top), word, font=face, fill=tuple(rng.randint(0, 80) for _ in range(3)))
    return image


def pictures(rng: random.Random) -> Iterator[Picture]:
    while True:
        word = rng.choice(WORDS)
        asked = (Asked(KIND, QUESTION, word),)
        yield Picture(KIND, encode(paint(word, rng)), f"word {word}", asked, {QUESTION: word})


def words(rng: random.Random, train: int, test: int) -> Parts:
    """Random pictures: `parts` leaves out repetitions."""
    return parts(pictures(rng), pictures(rng), (train, test))
