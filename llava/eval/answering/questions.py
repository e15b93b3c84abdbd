"""Questions to be answered: read from upstream's question files, divided among processes, their images checked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.answering.errors import EvaluationError
from llava.images import decoded, describe_unreadable, image_sizes, open_image, unreadable_images
from llava.names import count, some
from llava.reading import read_text


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        index: its place in the file: ids are not unique in every benchmark.
        text: what the model is asked, without `<image>`, which comes before it if there is an image.
        image: name of the image; None for a question of text.
        saved_prompt: `prompt` of the answer line; None repeats `text`.
        extra: further fields of the answer line.
        image_data: the image in base64, if the question file contains it.
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
    """The questions of a JSON-lines file (`question_id`, `text`, optional `image`).

    A `<image>` in the text, as in LLaVA's training data, is left out: the image goes before the text anyway.
    """
    questions, broken = [], []
    # Not splitlines(): texts may hold U+2028 and the like, which end no line of JSON.
    for number, line in enumerate(read_text(path, "question file", EvaluationError).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            image, text = row.get("image"), row["text"]
            if not isinstance(text, str) or not isinstance(image, str | None):
                raise TypeError("text and image are strings")
            if DEFAULT_IMAGE_TOKEN in text and not image:
                raise ValueError("its text has <image>, but it names no image")
            asked = text.replace(DEFAULT_IMAGE_TOKEN, "").strip() if DEFAULT_IMAGE_TOKEN in text else text
            questions.append(Question(len(questions), row["question_id"], asked, image or None, saved_prompt=text))
        except json.JSONDecodeError as error:
            broken.append(f"line {number} (not JSON: {error.msg} at column {error.colno})")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            broken.append(f"line {number} ({type(error).__name__}: {error})")
    if broken:
        raise EvaluationError(
            f"{path}: {broken[0].partition(' (')[0]} is not a question with question_id and text; "
            f"{count(len(broken), 'such line')}: {some(broken)}"
        )
    if not questions:
        raise EvaluationError(f"{path} holds no questions")
    return questions


def unusable_images(questions: Sequence[Question], folder: Path) -> dict[str, str]:
    """Images that are missing under `folder` or whose header cannot be read: name -> what is wrong, sorted by name."""
    data = {q.image: q.image_data for q in questions if q.image_data is not None}
    return unreadable_images((q.image for q in questions if q.image), folder, data)


def described(unusable: Mapping[str, str], questions: Sequence[Question], folder: Path) -> str:
    """A description of unusable images: how many, the first names, and how many questions need them."""
    hit = sum(q.image in unusable for q in questions)
    return f"{describe_unreadable(unusable, folder)} ({hit} of {count(len(questions), 'question')} need them)"


def check_images(questions: Sequence[Question], folder: Path) -> None:
    """Raises `EvaluationError` that counts and names missing and broken images."""
    if unusable := unusable_images(questions, folder):
        raise EvaluationError(
            f"{described(unusable, questions, folder)}; --skip-missing-images goes on without these questions"
        )


def open_question_image(question: Question, folder: Path) -> Image.Image:
    """The question's image as RGB; raises as `open_image`."""
    source = folder / question.image if question.image_data is None else decoded(question.image_data)
    return open_image(source, f"question {question.question_id}", question.image)


def question_image_sizes(questions: Sequence[Question], folder: Path) -> dict[str, tuple[int, int]]:
    """Width and height in pixels of the questions' images, by name; raises as `open_image`."""
    data = {q.image: q.image_data for q in questions if q.image_data is not None}
    return image_sizes((q.image for q in questions if q.image), folder, data)


def chunk(questions: Sequence[Question], num_chunks: int, chunk_idx: int) -> list[Question]:
    """Every num_chunks-th question, so that all chunks have about the same size."""
    if not 0 <= chunk_idx < num_chunks:
        raise EvaluationError(f"--chunk-idx {chunk_idx} does not exist; allowed: 0..{num_chunks - 1}")
    return list(questions[chunk_idx::num_chunks])
