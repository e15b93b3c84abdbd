"""MMLU and BIG-bench-hard from their official downloads to question files and annotations."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llava.eval import bbh, mmlu
from llava.eval.bbh import TASKS
from llava.files import write_json, written_whole


class BBHDataError(ValueError):
    """Task files that are not the published ones."""


def prepare_bbh(raw: Path, out: Path, check_counts: bool = True) -> int:
    """Writes `questions.jsonl` (`question_id`, `text`, `category`) and `annotations.json` to `out`.

    Args:
        raw: the folder of the 27 task files, or the repository that holds it as `bbh/`.
        check_counts: whether each task must have as many questions as published.

    Returns:
        how many questions were written.

    Raises:
        BBHDataError: names every file that is missing, broken, or of another length.
    """
    folder = raw / "bbh" if (raw / "bbh").is_dir() else raw
    problems, rows, annotations = [], [], {}
    for task in TASKS.values():
        try:
            examples = _read_task(folder / f"{task.name}.json")
        except BBHDataError as error:
            problems.append(str(error))
            continue
        if check_counts and len(examples) != task.questions:
            problems.append(f"{task.name}.json holds {len(examples)} questions; published are {task.questions}")
        for i, example in enumerate(examples):
            name = f"{task.name}/{i}"
            rows.append({"question_id": name, "text": bbh.prompt(example["input"]), "category": task.name})
            annotations[name] = {"task": task.name, "input": example["input"], "target": example["target"]}
    if problems:
        raise BBHDataError(f"BIG-bench-hard in {folder}: {'; '.join(problems)}")
    _write_lines(out / "questions.jsonl", rows)
    write_json(out / "annotations.json", annotations)
    return len(rows)


def _read_task(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise BBHDataError(f"{path.name} is missing")
    try:
        examples = json.loads(path.read_text(encoding="utf-8"))["examples"]
        if not examples or not all(isinstance(e["input"], str) and isinstance(e["target"], str) for e in examples):
            raise ValueError("an example without input or target")
    except (ValueError, KeyError, TypeError) as error:
        raise BBHDataError(f"{path.name} is not a task file with examples of input and target ({error})") from error
    return examples


def prepare_mmlu(raw: Path, out: Path, check_counts: bool = True) -> int:
    """Writes `questions.jsonl`, `shots.json` and `annotations.json` to `out`.

    A line of the question file has `question_id` ("anatomy/0"), `text` (the paper's prompt with five examples), `image`
    left out, `category` (the subject), and `question` and `choices` by themselves, from which other prompts are made.
    `shots.json` holds the first five questions of each subject's dev file.

    Args:
        raw: the unpacked data.tar: a folder with `dev` and `test`, or one that holds it as `data/`.
        check_counts: whether all 57 subjects must be there with 14,042 questions; else those that are there are taken.

    Returns:
        how many questions were written.

    Raises:
        MMLUDataError: a missing or broken file, or other counts than published.
    """
    folder = raw / "data" if (raw / "data" / "test").is_dir() else raw
    if not (folder / "test").is_dir():
        tar = next((path for path in (raw / "data.tar", raw) if path.is_file()), None)
        hint = f"; unpack it with: tar -xf {tar} -C {tar.parent}" if tar else ""
        raise mmlu.MMLUDataError(f"{raw} has no folder test (nor data/test) as in the official data.tar{hint}")
    subjects = list(mmlu.SUBJECTS)
    if not check_counts:
        subjects = [subject for subject in subjects if (folder / "test" / f"{subject}_test.csv").is_file()]
    rows, annotations, shots = [], {}, {}
    for subject in subjects:
        examples = mmlu.read_split(folder, "dev", subject)[: mmlu.SHOTS]
        if len(examples) < mmlu.SHOTS:
            raise mmlu.MMLUDataError(
                f"{folder}/dev/{subject}_dev.csv holds {len(examples)} questions; {mmlu.SHOTS} are needed as examples"
            )
        shots[subject] = [{"question": e.question, "choices": e.choices, "answer": e.answer} for e in examples]
        for i, item in enumerate(mmlu.read_split(folder, "test", subject)):
            name = f"{subject}/{i}"
            rows.append(
                {
                    "question_id": name,
                    "text": mmlu.generation_prompt(subject, examples, item),
                    "category": subject,
                    "question": item.question,
                    "choices": item.choices,
                }
            )
            annotations[name] = {"answer": item.answer, "choices": item.choices}
    if check_counts and len(rows) != mmlu.QUESTIONS:
        raise mmlu.MMLUDataError(f"{folder}/test holds {len(rows)} questions; published are {mmlu.QUESTIONS}")
    if not rows:
        raise mmlu.MMLUDataError(f"{folder}/test holds no file of a known subject")
    _write_lines(out / "questions.jsonl", rows)
    write_json(out / "shots.json", shots)
    write_json(out / "annotations.json", annotations)
    return len(rows)


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with written_whole(path) as aside, open(aside, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
