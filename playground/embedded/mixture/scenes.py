"""Composed scenes: two to four of easy-VQA's shapes on one picture, to count them and to say what is at a place."""

import random
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image, ImageDraw

from llava.eval.benchmarks.easy_vqa import COLOURS, SHAPES
from playground.embedded.mixture.pictures import SIZE, Asked, Parts, Picture, background, encode, parts

KIND = "scene"
COUNT = "How many shapes are there?"
GRID = 10
"""Corners lie on multiples of a tenth of the side."""
HALF = GRID // 2
SIDES = (3, 4)
QUARTERS = {"top left": (0, 0), "top right": (1, 0), "bottom left": (0, 1), "bottom right": (1, 1)}
_FINER = 4
"""Shapes are drawn larger by this and reduced, for smooth edges."""


class Shape(NamedTuple):
    """A shape in a quarter of the picture; its box is in tenths of the side."""

    name: str
    colour: str
    quarter: str
    left: int
    top: int
    width: int
    height: int

    @property
    def words(self) -> str:
        return f"{self.colour} {self.name}"

    @property
    def corners(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.left + self.width, self.top + self.height


def draw_shapes(rng: random.Random) -> list[Shape]:
    """Shapes of different colours in different quarters, in the order of reading."""
    quarters = sorted(rng.sample(list(QUARTERS), rng.randint(2, 4)), key=list(QUARTERS).index)
    shapes = []
    for quarter, colour in zip(quarters, rng.sample(COLOURS, len(quarters)), strict=True):
        name = rng.choice(SHAPES)
        width, height = rng.choice(SIDES), rng.choice(SIDES)
        if name != "rectangle":
            height = width
        left, top = (
            HALF * place + rng.randint(0, HALF - side)
            for place, side in zip(QUARTERS[quarter], (width, height), strict=True)
        )
        shapes.append(Shape(name, colour, quarter, left, top, width, height))
    return shapes


def paint(shapes: list[Shape], colour: tuple[int, int, int]) -> Image.Image:
    """The picture of shapes on a background."""
    scale = SIZE * _FINER / GRID
    image = Image.new("RGB", (SIZE * _FINER,) * 2, colour)
    draw = ImageDraw.Draw(image)
    for shape in shapes:
        left, top, right, bottom = (scale * x for x in shape.corners)
        if shape.name == "circle":
            draw.ellipse((left, top, right, bottom), fill=shape.colour)
        elif shape.name == "rectangle":
            draw.rectangle((left, top, right, bottom), fill=shape.colour)
        else:
            draw.polygon(((left, bottom), (right, bottom), ((left + right) / 2, top)), fill=shape.colour)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def picture(rng: random.Random, train: bool) -> Picture:
    """A scene with a count and a place; in training with two places."""
    shapes = draw_shapes(rng)
    places = {f"What is at the {shape.quarter}?": shape.words for shape in shapes}
    count = {COUNT: str(len(shapes))}
    asked = [Asked("place", question, places[question]) for question in rng.sample(list(places), 2 if train else 1)]
    asked += [Asked("count", question, answer) for question, answer in count.items()]
    rng.shuffle(asked)
    caption = ", ".join(f"{shape.quarter} {shape.words}" for shape in shapes)
    return Picture(KIND, encode(paint(shapes, background(rng))), caption, tuple(asked), count | places)


def pictures(rng: random.Random, train: bool) -> Iterator[Picture]:
    while True:
        yield picture(rng, train)


def scenes(rng: random.Random, train: int, test: int) -> Parts:
    """Each picture is drawn at random, so no two are the same: `parts` leaves out repetitions."""
    return parts(pictures(rng, True), pictures(rng, False), (train, test))
