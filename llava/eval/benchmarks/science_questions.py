"""ScienceQA's question file: a JSON list of conversations, part of them with an image."""

import json
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.answering.errors import EvaluationError, some
from llava.eval.answering.questions import Question, read_text

LETTER_SUFFIX = "Answer with the option's letter from the given choices directly."


def read_science_questions(path: str | Path, single_pred_prompt: bool = False) -> list[Question]:
    """The questions of `llava_test_CQM-A.json` or `bunny_test_CQM-A.json` (upstream: llava/eval/model_vqa_science.py).

    The saved prompt keeps `<image>` and the suffix: it is how the scorer knows which questions have an image.

    Args:
        single_pred_prompt: ask for the letter alone.

    Raises:
        EvaluationError: names every entry that is no question by its place.
    """
    try:
        rows = json.loads(read_text(path))
    except ValueError as error:
        raise EvaluationError(f"{path} is not valid JSON ({error}); is it whole?") from error
    if not isinstance(rows, list) or not rows:
        raise EvaluationError(f"{path} holds no list of questions")
    questions, broken = [], []
    for number, row in enumerate(rows, start=1):
        try:
            questions.append(_question(len(questions), row, single_pred_prompt))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            broken.append(f"entry {number} ({type(error).__name__}: {error})")
    if broken:
        raise EvaluationError(
            f"{path}: {len(broken)} entries are not questions with id and conversations: {some(broken)}"
        )
    return questions


def _question(index: int, row: dict[str, Any], single_pred_prompt: bool) -> Question:
    text = row["conversations"][0]["value"].replace(DEFAULT_IMAGE_TOKEN, "").strip()
    if single_pred_prompt:
        text = f"{text}\n{LETTER_SUFFIX}"
    image = row.get("image")
    saved = f"{DEFAULT_IMAGE_TOKEN}\n{text}" if image else text
    return Question(index, row["id"], text, image or None, saved)
