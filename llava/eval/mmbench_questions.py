"""MMBench's question file: a TSV that carries its images in base64."""

import base64
import csv
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from llava.eval.errors import EvaluationError
from llava.eval.mmbench import LETTERS, NEEDED, SHORTEST_IMAGE, is_none, options_of
from llava.eval.questions import Question, read_text, some
from llava.eval.science_questions import LETTER_SUFFIX

SUFFIXES = {"en": LETTER_SUFFIX, "cn": "请直接回答选项字母。"}


def read_mmbench_questions(
    path: str | Path, single_pred_prompt: bool = False, all_rounds: bool = False, lang: str = "en"
) -> list[Question]:
    """The questions of a MMBench TSV (upstream: llava/eval/model_vqa_mmbench.py).

    The saved prompt lacks `<image>` and the suffix.

    Args:
        single_pred_prompt: ask for the letter alone, in the language `lang`.
        all_rounds: ask each question once for each rotation of its options (circular evaluation).

    Raises:
        EvaluationError: a column is missing, a row is cut off, or an image cell holds no whole image; by line.
    """
    rows = _read_rows(path)
    images = {row["index"]: row["image"] for _, row in rows}
    checked: dict[str, str | None] = {}
    questions: list[Question] = []
    broken = []
    for number, row in rows:
        data = row["image"]
        if len(data) < SHORTEST_IMAGE and data in images:
            data = images[data]
        if data not in checked:
            checked[data] = _problem(data)
        if checked[data]:
            broken.append(f"line {number} (index {row['index']}: {checked[data]})")
            continue
        questions += _rounds(len(questions), row, data, single_pred_prompt, all_rounds, lang)
    if broken:
        raise EvaluationError(f"{path}: {len(broken)} image cells hold no whole image; is it whole? {some(broken)}")
    return questions


def _read_rows(path: str | Path) -> list[tuple[int, dict[str, str]]]:
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), dialect="excel-tab")
    columns = reader.fieldnames or []
    absent = [name for name in NEEDED if name not in columns]
    if absent:
        raise EvaluationError(f"{path} has no column {', '.join(absent)}; it has {', '.join(columns) or 'nothing'}")
    rows, short = [], []
    for row in reader:
        if None in row or None in row.values():
            have = sum(value is not None for key, value in row.items() if key is not None)
            short.append(f"line {reader.line_num} ({have} of {len(columns)} cells)")
        else:
            rows.append((reader.line_num, row))
    if short:
        raise EvaluationError(f"{path}: {len(short)} rows have not one cell for each column: {some(short)}")
    if not rows:
        raise EvaluationError(f"{path} holds no questions")
    return rows


def _rounds(
    index: int, row: Mapping[str, str], data: str, single_pred_prompt: bool, all_rounds: bool, lang: str
) -> list[Question]:
    options = options_of(row)
    letters = list(LETTERS[: len(options)])
    stem = row["question"] if is_none(row.get("hint")) else f"{row['hint']}\n{row['question']}"
    question_id = int(row["index"]) if row["index"].isdecimal() else row["index"]
    questions = []
    for number in range(len(options) if all_rounds else 1):
        turned = options[number:] + options[:number]
        prompt = "\n".join(
            [stem, *(f"{letter}. {text}" for letter, text in zip(LETTERS, turned, strict=False))],
        )
        extra = {"round_id": number, "options": turned, "option_char": letters[number:] + letters[:number]}
        text = f"{prompt}\n{SUFFIXES[lang]}" if single_pred_prompt else prompt
        questions.append(Question(index + number, question_id, text, f"index {row['index']}", prompt, extra, data))
    return questions


def _problem(data: str) -> str | None:
    """What is wrong with an image cell, without decoding its pixels; None for a whole one."""
    try:
        raw = base64.b64decode(data, validate=True)
        with Image.open(io.BytesIO(raw)) as image:
            kind = image.format
            image.verify()
    except (OSError, SyntaxError, ValueError) as error:
        return f"{error}" or type(error).__name__
    # verify() checks what a PNG says of itself; of a JPEG it reads the head only.
    if kind == "JPEG" and b"\xff\xd9" not in raw[-64:]:
        return "the JPEG is cut off"
    return None
