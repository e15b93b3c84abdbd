"""MMBench's question file: a TSV that carries its images in base64."""

from collections.abc import Mapping
from pathlib import Path

from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.questions import Question
from llava.eval.benchmarks.mmbench import LETTERS, is_none, options_of, read_tsv
from llava.eval.benchmarks.science_questions import LETTER_SUFFIX
from llava.eval.scoring.pairing import ScoringError

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
        EvaluationError: as `llava.eval.benchmarks.mmbench.read_tsv`.
    """
    try:
        rows = read_tsv(path)
    except ScoringError as error:
        raise EvaluationError(f"question file {error}") from error
    questions: list[Question] = []
    for row in rows:
        questions += _rounds(len(questions), row, single_pred_prompt, all_rounds, lang)
    return questions


def _rounds(
    index: int, row: Mapping[str, str], single_pred_prompt: bool, all_rounds: bool, lang: str
) -> list[Question]:
    options = options_of(row)
    letters = list(LETTERS[: len(options)])
    stem = row["question"] if is_none(row.get("hint")) else f"{row['hint']}\n{row['question']}"
    questions = []
    for number in range(len(options) if all_rounds else 1):
        turned = options[number:] + options[:number]
        prompt = "\n".join(
            [stem, *(f"{letter}. {text}" for letter, text in zip(LETTERS, turned, strict=False))],
        )
        extra = {"round_id": number, "options": turned, "option_char": letters[number:] + letters[:number]}
        text = f"{prompt}\n{SUFFIXES[lang]}" if single_pred_prompt else prompt
        questions.append(
            Question(index + number, int(row["index"]), text, f"index {row['index']}", prompt, extra, row["image"])
        )
    return questions
