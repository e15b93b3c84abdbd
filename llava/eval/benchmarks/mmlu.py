"""MMLU: its 57 subjects, the official CSV files, and the two prompts.

`generate` is the paper's way: five examples, the question, and the instruction to answer with a letter, as one turn of
the checkpoint's conversation. `loglikelihood` is lm-eval's `mmlu`: no conversation, the letter whose continuation of
"Answer:" is the most probable. The two give different numbers and are never mixed.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CATEGORIES = {
    "STEM": "abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics "
    "college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics "
    "high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics "
    "high_school_physics high_school_statistics machine_learning",
    "humanities": "formal_logic high_school_european_history high_school_us_history high_school_world_history "
    "international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory "
    "professional_law world_religions",
    "social sciences": "econometrics high_school_geography high_school_government_and_politics "
    "high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality "
    "professional_psychology public_relations security_studies sociology us_foreign_policy",
    "other": "anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management "
    "marketing medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology",
}
CATEGORIES = tuple(_CATEGORIES)
SUBJECTS: dict[str, str] = dict(
    sorted((subject, category) for category, subjects in _CATEGORIES.items() for subject in subjects.split())
)
"""Subject -> category, in alphabetical order."""
QUESTIONS = 14042
"""In the test files of all subjects."""
LETTERS = "ABCD"
SHOTS = 5
SPLITS = ("dev", "val", "test")
INSTRUCTION = "Answer with the option's letter from the given choices directly."
"""The paper's."""


class MMLUDataError(ValueError):
    """Files that are not the official ones: each message names the file, the line and what is expected."""


@dataclass(frozen=True)
class Item:
    """A question with its four choices and the letter of the right one."""

    question: str
    choices: tuple[str, str, str, str]
    answer: str

    def text(self) -> str:
        """Question and lettered choices, a line each."""
        lettered = (f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=True))
        return "\n".join([self.question.strip(), *lettered])


def read_split(folder: Path, split: str, subject: str) -> list[Item]:
    """The questions of one subject, from `SPLIT/SUBJECT_SPLIT.csv` in the unpacked data.tar.

    Raises:
        MMLUDataError: no such file, or a row that is not a question, four choices and a letter.
    """
    path = folder / split / f"{subject}_{split}.csv"
    if not path.is_file():
        raise MMLUDataError(f"{path} is missing; expected the official data.tar, unpacked")
    items = []
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        line = 1
        for row in reader:
            if row:
                items.append(_item(row, f"{path}, line {line}"))
            line = reader.line_num + 1
    if not items:
        raise MMLUDataError(f"{path} holds no questions")
    return items


def _item(row: Sequence[str], where: str) -> Item:
    if len(row) != 6:
        raise MMLUDataError(f"{where}: {len(row)} columns; expected 6 (question, four choices, letter)")
    question, *choices, answer = row
    if answer not in LETTERS or len(answer) != 1:
        raise MMLUDataError(f"{where}: the answer is {answer!r}; expected one of A, B, C, D")
    if not question.strip():
        raise MMLUDataError(f"{where}: the question is empty")
    return Item(question, tuple(choices), answer)


def header(subject: str) -> str:
    """The line that opens a prompt: of the original paper, and of lm-eval."""
    return f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"


def generation_prompt(subject: str, shots: Sequence[Item], item: Item) -> str:
    """One human turn: the examples with their letters, then the question under the paper's instruction."""
    examples = "".join(f"{shot.text()}\nAnswer: {shot.answer}\n\n" for shot in shots)
    return f"{header(subject)}{examples}{item.text()}\n{INSTRUCTION}"


def likelihood_prompt(subject: str, shots: Sequence[Item], item: Item) -> str:
    """The plain text whose continuations " A" to " D" lm-eval compares."""
    examples = "".join(f"{shot.text()}\nAnswer: {shot.answer}\n\n" for shot in shots)
    return f"{header(subject)}{examples}{item.text()}\nAnswer:"
