"""MMLU: its 57 subjects, the official CSV files, and the two prompts.

`generate` is the paper's way: five examples, the question, and the instruction to answer with a letter, as one turn of
the checkpoint's conversation. `loglikelihood` is lm-eval's `mmlu`: no conversation, the most probable letter after
"Answer:". Their numbers differ and are never mixed.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.eval.benchmarks.base import LIMIT_PER_TASK, Benchmark, Published, Setting
from llava.eval.benchmarks.parquet import Split, find_split, write_made
from llava.eval.benchmarks.preparing import Options, PrepareError, check_count, find, set_up
from llava.eval.scoring.letters import LETTER_SUFFIX, VERSION, read_letter
from llava.eval.scoring.pairing import Answers, ScoringError, expecting, pair
from llava.eval.scoring.report import Measure, Report, by_group, group, mean_of_group_means
from llava.names import some

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
SUBJECTS: dict[str, str] = dict(
    sorted((subject, category) for category, subjects in _CATEGORIES.items() for subject in subjects.split())
)
"""Subject -> category, in alphabetical order."""
SHOTS_FILE, ANNOTATIONS = "shots.json", "annotations.json"
PUBLISHED = Published(14042, "test questions")
LETTERS = "ABCD"
SHOTS = 5
METHODS = ("generate", "loglikelihood")


@dataclass(frozen=True)
class Item:
    """A question with its four choices and the letter of the right one."""

    question: str
    choices: tuple[str, str, str, str]
    answer: str

    def text(self) -> str:
        """Question and lettered choices, one per line."""
        lettered = (f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=True))
        return "\n".join([self.question.strip(), *lettered])


def from_hub(raw: Path, test: Split, out: Path, options: Options) -> Path:
    """Writes the official CSV files from the Hub's cais/mmlu (`all`); returns their folder."""
    check_count(PUBLISHED, len(test), options)
    dev = find_split(raw, "dev", "all")
    if dev is None:
        raise PrepareError(f"{raw} has the split test, but not dev, which has the examples")
    for name, split in (("dev", dev), ("test", test)):
        lines: dict[str, list[list[str]]] = defaultdict(list)
        for row in split.rows("question", "subject", "choices", "answer"):
            lines[row["subject"]].append([row["question"], *row["choices"], LETTERS[row["answer"]]])
        for subject, found in lines.items():
            text = io.StringIO()
            csv.writer(text).writerows(found)
            write_made(out / name / f"{Path(subject).name}_{name}.csv", text.getvalue(), options)
    return out


def read_split(folder: Path, split: str, subject: str) -> list[Item]:
    """The questions of one subject, from `SPLIT/SUBJECT_SPLIT.csv` in the unpacked data.tar."""
    path = folder / split / f"{subject}_{split}.csv"
    if not path.is_file():
        raise PrepareError(f"{path} is missing; expected the official data.tar, unpacked")
    items, line = [], 1
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        for row in reader:
            if row:
                items.append(_item(row, f"{path}, line {line}"))
            line = reader.line_num + 1
    if not items:
        raise PrepareError(f"{path} holds no questions")
    return items


def _item(row: Sequence[str], where: str) -> Item:
    if len(row) != 6:
        raise PrepareError(f"{where}: {len(row)} columns; expected 6 (question, four choices, letter)")
    question, *choices, answer = row
    if answer not in LETTERS or len(answer) != 1:
        raise PrepareError(f"{where}: the answer is {answer!r}; expected one of A, B, C, D")
    if not question.strip():
        raise PrepareError(f"{where}: the question is empty")
    return Item(question, tuple(choices), answer)


def _examples(subject: str, shots: Sequence[Item]) -> str:
    """The beginning of a prompt, in the original paper and in lm-eval."""
    header = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    return header + "".join(f"{shot.text()}\nAnswer: {shot.answer}\n\n" for shot in shots)


def generation_prompt(subject: str, shots: Sequence[Item], item: Item) -> str:
    """The paper's: one human turn."""
    return f"{_examples(subject, shots)}{item.text()}\n{LETTER_SUFFIX}"


def likelihood_prompt(subject: str, shots: Sequence[Item], item: Item) -> str:
    """The plain text whose continuations " A" to " D" lm-eval compares."""
    return f"{_examples(subject, shots)}{item.text()}\nAnswer:"


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl, shots.json and annotations.json.

    A line of the question file has `question_id` ("anatomy/0"), `text` (the paper's prompt with five examples),
    `category` (the subject), and `question` and `choices` for other prompts. shots.json holds the first five questions
    of each subject's dev file; annotations.json letter and choices by question id.

    `raw` is the unpacked data.tar: a folder with `dev` and `test`, or one that holds it as `data/`. Subjects may be
    missing if counts are not checked.
    """
    if hub := find_split(raw, "test", "all"):
        raw = from_hub(raw, hub, out, options)
    folder = find(raw, "data/test", "test").parent
    subjects = list(SUBJECTS)
    if not options.check_counts:
        subjects = [subject for subject in subjects if (folder / "test" / f"{subject}_test.csv").is_file()]
    rows, annotations, shots = [], {}, {}
    for subject in subjects:
        examples = read_split(folder, "dev", subject)[:SHOTS]
        if len(examples) < SHOTS:
            raise PrepareError(f"{folder}/dev/{subject}_dev.csv holds {len(examples)} questions; {SHOTS} are needed")
        shots[subject] = [{"question": e.question, "choices": e.choices, "answer": e.answer} for e in examples]
        for i, item in enumerate(read_split(folder, "test", subject)):
            name = f"{subject}/{i}"
            text = generation_prompt(subject, examples, item)
            row = {"question_id": name, "text": text, "category": subject}
            rows.append(row | {"question": item.question, "choices": list(item.choices)})
            annotations[name] = {"answer": item.answer, "choices": item.choices}
    if not rows:
        raise PrepareError(f"{folder}/test holds no file of a known subject (SUBJECT_test.csv)")
    check_count(PUBLISHED, len(rows), options)
    others = {SHOTS_FILE: shots, ANNOTATIONS: annotations}
    return set_up(out, {}, "questions.jsonl", rows, options, others=others)


def score(answers: Answers, annotations: Mapping[str, Mapping[str, Any]], **pairing: Any) -> Report:
    """Accuracy over questions (as lm-eval's `mmlu`), subjects and categories.

    Args:
        answers: `method` is one of `METHODS` (default: generate), `shots` the number of examples.
        annotations: question id ("SUBJECT/NUMBER") -> `answer`, a letter, and `choices`, four texts.
    """
    with expecting("not the annotations.json that `python -m llava.eval.prepare mmlu` writes"):
        if not all(len(truth["choices"]) == 4 and truth["answer"] in set(LETTERS) for truth in annotations.values()):
            raise ValueError("an annotation without four choices and the letter of one")
    paired = pair(answers, annotations, **pairing)
    methods = {line.get("method", "generate") for line in answers}
    if len(methods) != 1 or not methods <= set(METHODS):
        found = ", ".join(sorted(map(str, methods)))
        raise ScoringError(f"the answers were made by {found}; expected one of {', '.join(METHODS)}")
    (method,) = methods
    subjects = [reply.key.rpartition("/")[0] for reply in paired.replies]
    if unknown := sorted(set(subjects) - set(SUBJECTS)):
        raise ScoringError(f"question ids of unknown MMLU subjects: {some(unknown)}")
    letters = [read_letter(reply.text or "", reply.truth["choices"]) for reply in paired.replies]
    right = [float(letter == reply.truth["answer"]) for letter, reply in zip(letters, paired.replies, strict=True)]
    kinds = {"category": [SUBJECTS[subject] for subject in subjects], "subject": subjects}
    fewer = sum(r.line is not None and r.line.get("shots", SHOTS) < SHOTS for r in paired.replies)
    metrics = {"accuracy": Measure.of(right)}
    for kind in ("subject", "category"):
        metrics[f"{kind}_mean"] = mean_of_group_means(by_group(kinds[kind], right))
    details = {
        "method": method,
        "what": "letter generated after the paper's prompt"
        if method == "generate"
        else "most probable of the continuations A to D (lm-eval); not comparable with generated letters",
        "letter_rule": VERSION,
        "shots": SHOTS,
        "published_samples": PUBLISHED.count,
    }
    failures = letters.count(None)
    report = Report.of("mmlu", paired, right, metrics, answers=len(right), parse_failures=failures, details=details)
    report.groups = {kind: group(names, right) for kind, names in kinds.items()}
    if fewer:
        report.warnings.append(f"{fewer} prompts hold fewer than {SHOTS} examples: more did not fit into the context")
    if (number := len(set(subjects))) < len(SUBJECTS):
        report.warnings.append(f"{number} of the {len(SUBJECTS)} subjects")
    return report


MMLU = Benchmark(
    name="mmlu",
    column="MMLU",
    annotations=(SHOTS_FILE, ANNOTATIONS),
    prepare=prepare,
    score=score,
    rule=VERSION,
    visual=False,
    text=True,
    program="model_mmlu",
    answer_flags=("--shots-file", "{data}/shots.json"),
    answers="answers/{stem}{METHOD}/{name}.jsonl",
    settings=(
        LIMIT_PER_TASK,
        Setting(
            "METHOD",
            "generate (the paper's prompt, the letter is read from the reply) or loglikelihood (as lm-eval)",
            "--method",
            default=METHODS[0],
        ),
    ),
    published=PUBLISHED,
    annotation_help="annotations.json, as llava.eval.prepare writes it",
    finish=lambda args, report, file: print(f"MMLU by {report.details['method']}: {report.details['what']}"),
)
