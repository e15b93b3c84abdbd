"""Questions to be answered: read from upstream's question files, dealt to processes, their images checked."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from transformers.utils.logging import tqdm

from llava.data.dataset import UNREADABLE, BrokenImageError
from llava.eval.answering.errors import EvaluationError, some

MISSING = "missing"
"""What is said of an image that is no file."""
_READERS = 8
"""Threads that look at images: most of that time is spent waiting for the disk."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        index: its place in the file: ids are not unique in every benchmark.
        question_id: its id, as the answer repeats it.
        text: what the model is asked, without `<image>`, which comes before it where there is an image.
        image: name of the image: a file, or a key of what `image_data` holds; None for a question of text.
        saved_prompt: what the answer line repeats as `prompt`; None repeats `text`.
        extra: further fields of the answer line, as the benchmark's format asks.
        image_data: the image itself in base64, where the question file carries it.
    """

    index: int
    question_id: Any
    text: str
    image: str | None
    saved_prompt: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    image_data: str | None = field(default=None, repr=False)

    @property
    def prompt(self) -> str:
        return self.text if self.saved_prompt is None else self.saved_prompt


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a JSON-lines file (`question_id`, `text`, and `image` where there is one).

    Raises:
        EvaluationError: names every unreadable line (the first ones, and how many) by its number.
    """
    questions, broken = [], []
    # Not splitlines(): texts may hold U+2028 and the like, which end no line of JSON.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            image, text = row.get("image"), row["text"]
            if not isinstance(text, str) or not isinstance(image, str | None):
                raise TypeError("text and image are strings")
            questions.append(Question(len(questions), row["question_id"], text, image or None))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            broken.append(f"line {number} ({type(error).__name__}: {error})")
    if broken:
        raise EvaluationError(
            f"{path}: {broken[0].partition(' (')[0]} is not a question with question_id and text; "
            f"{len(broken)} such lines: {some(broken)}"
        )
    if not questions:
        raise EvaluationError(f"{path} holds no questions")
    return questions


def read_text(path: str | Path) -> str:
    """A question file's text; raises `EvaluationError` where there is none or it is not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise EvaluationError(f"question file {path} does not exist") from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"question file {path} is not UTF-8 text (byte {error.start}); is it whole?") from error


def unusable_images(questions: Sequence[Question], folder: Path) -> dict[str, str]:
    """Images that are missing under `folder` or whose header cannot be read: name -> what is wrong, sorted by name.

    Pixels are not decoded, which would take minutes: an image that is cut off further down is found when it is needed.
    """
    # One of the questions stands for its image.
    images = {q.image: q for q in questions if q.image}
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda q: _header_error(q, folder), images.values())
        # A bar appears only where looking takes a while.
        found = list(tqdm(found, total=len(images), desc="looking at the images", unit="image", delay=3))
    return dict(sorted((name, why) for name, why in zip(images, found, strict=True) if why))


def _header_error(question: Question, folder: Path) -> str | None:
    try:
        if question.image_data is None:
            path = folder / question.image
            if not path.is_file():
                return MISSING
            if not path.stat().st_size:
                return "0 bytes"
            with Image.open(path):
                return None
        with Image.open(io.BytesIO(base64.b64decode(question.image_data, validate=True))):
            return None
    except UNREADABLE as error:
        return str(error)


def described(unusable: Mapping[str, str], questions: Sequence[Question], folder: Path) -> str:
    """What `unusable_images` found: images counted and named, and how many questions need them."""
    missing = [name for name, why in unusable.items() if why == MISSING]
    broken = [f"{name} ({why})" for name, why in unusable.items() if why != MISSING]
    parts = []
    if missing:
        parts.append(f"{len(missing)} images are missing under {folder}: {some(missing)}")
    if broken:
        parts.append(f"{len(broken)} images cannot be opened: {some(broken)}")
    hit = sum(q.image in unusable for q in questions)
    return f"{'; '.join(parts)} ({hit} of {len(questions)} questions need them)"


def check_images(questions: Sequence[Question], folder: Path) -> None:
    """Raises `EvaluationError` that counts and names missing and broken images, before anything is generated."""
    unusable = unusable_images(questions, folder)
    if unusable:
        raise EvaluationError(
            f"{described(unusable, questions, folder)}; --skip-missing-images goes on without these questions"
        )


def open_question_image(question: Question, folder: Path) -> Image.Image:
    """The question's image as RGB.

    Raises:
        BrokenImageError: missing, cut off, or no image; names the question.
    """
    try:
        if question.image_data is None:
            source = folder / question.image
        else:
            source = io.BytesIO(base64.b64decode(question.image_data, validate=True))
        with Image.open(source) as image:
            return image.convert("RGB")
    except UNREADABLE as error:
        name = "" if question.image_data else f" {folder / question.image}"
        raise BrokenImageError(
            f"the image{name} of question {question.question_id} cannot be opened ({error})", question.image, str(error)
        ) from error


def chunk(questions: Sequence[Question], num_chunks: int, chunk_idx: int) -> list[Question]:
    """Every num_chunks-th question: each chunk exists and all are of like size."""
    if not 0 <= chunk_idx < num_chunks:
        raise EvaluationError(f"--chunk-idx {chunk_idx} does not exist; allowed: 0..{num_chunks - 1}")
    return list(questions[chunk_idx::num_chunks])
