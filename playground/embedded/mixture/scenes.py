"""Composed scenes: two to four of easy-VQA's shapes on one picture, to count, to locate and to compare."""

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image, ImageDraw

from llava.eval.benchmarks.easy_vqa import COLOURS, SHAPES
from playground.embedded.mixture.pictures import SIZE, Asked, Parts, Picture, background, encode, parts

KIND = "scene"
GRID = 10
"""Corners lie on multiples of a tenth of the side, so that one decimal names them exactly."""
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


def box_text(shape: Shape) -> str:
    """The box as LLaVA's training data writes boxes, in shares of the picture."""
    return f"[{', '.join(f'{x / GRID:.1f}' for x in shape.corners)}]"


def relations(shapes: list[Shape]) -> dict[str, str]:
    """Question -> yes or no, for all pairs that are in different columns (left of) or rows (above)."""
    answers = {}
    for first, second in itertools.permutations(shapes, 2):
        for axis, words in ((0, "left of"), (1, "above")):
            one, other = (QUARTERS[shape.quarter][axis] for shape in (first, second))
            if one != other:
                answers[f"Is the {first.words} {words} the {second.words}?"] = "yes" if one < other else "no"
    return answers


def counts(shapes: list[Shape]) -> dict[str, str]:
    answers = {f"How many {name}s are there?": str(sum(s.name == name for s in shapes)) for name in SHAPES}
    return {"How many shapes are there?": str(len(shapes))} | answers


def picture(rng: random.Random, train: bool) -> Picture:
    """A scene with a count, a place and a relation; in training with two counts and two relations."""
    shapes = draw_shapes(rng)
    relation, count = relations(shapes), counts(shapes)
    places = {f"Where is the {shape.words}?": box_text(shape) for shape in shapes}
    wanted = ["yes", "no"] if train else [rng.choice(["yes", "no"])]
    asked = [Asked("relation", rng.choice([q for q, a in relation.items() if a == w]), w) for w in wanted]
    for question in rng.sample(list(count), 2 if train else 1):
        asked.append(Asked("count", question, count[question]))
    where, shape = rng.choice(list(zip(places, shapes, strict=True)))
    box = (shape.left, shape.top, shape.width, shape.height)
    asked.append(Asked("locate", where, places[where], tuple(round(x * SIZE / GRID, 1) for x in box)))
    rng.shuffle(asked)
    caption = ", ".join(f"{shape.quarter} {shape.words}" for shape in shapes)
    drawn = encode(paint(shapes, background(rng)))
    return Picture(KIND, drawn, caption, tuple(asked), count | places | relation)


def pictures(rng: random.Random, train: bool) -> Iterator[Picture]:
    while True:
        yield picture(rng, train)


def scenes(rng: random.Random, train: int, test: int) -> Parts:
    """Each picture is drawn at random, so no two are the same: `parts` leaves out repetitions."""
    return parts(pictures(rng, True), pictures(rng, False), (train, test))
