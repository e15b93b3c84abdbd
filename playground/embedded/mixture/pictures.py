"""What every task of the mixture gives: pictures, each with a caption and questions."""

import hashlib
import io
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import Image

SIZE = 128
"""Side of a drawn picture in pixels: what the tower reads."""


class Asked(NamedTuple):
    """A question and its answer."""

    task: str
    question: str
    answer: str


@dataclass(frozen=True)
class Picture:
    """A picture and what is asked about it.

    Attributes:
        kind: the folder of its file.
        png: the content of its file.
        caption: what stage 1 learns to say.
        asked: its questions.
        answers: every question that could be asked about it -> answer; to a question about a picture, a wrong picture
            has another answer. Empty: `looks` says which pictures are wrong.
        looks: a wrong picture shares none of these.
    """

    kind: str
    png: bytes
    caption: str
    asked: tuple[Asked, ...]
    answers: Mapping[str, str] = field(default_factory=dict)
    looks: frozenset[str] = frozenset()

    def is_wrong_for(self, asked: Asked, right: "Picture") -> bool:
        """Whether this picture can stand for the right one in the control with wrong images."""
        return (
            self.kind == right.kind
            and not self.looks & right.looks
            and (not self.answers or self.answers.get(asked.question, asked.answer) != asked.answer)
        )


class Parts(NamedTuple):
    """A task's pictures by name; no picture of one part has the content of one of the other."""

    train: dict[str, Picture]
    test: dict[str, Picture]


def encode(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def content_hash(png: bytes) -> str:
    """A hash of size and pixels, whatever the compression of the file."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def background(rng: random.Random) -> tuple[int, int, int]:
    """A light colour, as behind easy-VQA's shapes."""
    return tuple(rng.randint(225, 255) for _ in range(3))  # type: ignore[return-value]


def different(pictures: Iterable[Picture], number: int, seen: set[str]) -> dict[str, Picture]:
    """The first pictures whose content was not seen, by name; adds theirs to `seen`."""
    found: dict[str, Picture] = {}
    for picture in pictures:
        if len(found) == number:
            break
        key = content_hash(picture.png)
        if key not in seen:
            seen.add(key)
            found[f"{picture.kind}-{len(found)}"] = picture
    return found


def parts(train: Iterable[Picture], test: Iterable[Picture], numbers: Sequence[int]) -> Parts:
    """So many pictures of each part, all of different content."""
    seen: set[str] = set()
    asked = different(test, numbers[1], seen)
    return Parts(different(train, numbers[0], seen), asked)
