"""BIG-bench-hard: the 27 task files to one question file, with the paper's zero-shot prompt."""

import json
from pathlib import Path

from llava.eval.benchmarks import bbh
from llava.eval.prepare.common import Options, PrepareError, set_up
from llava.files import write_json


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl (`question_id` "TASK/NUMBER", `text`, `category`) and annotations.json.

    Args:
        raw: the folder of the task files, or the repository that holds it as `bbh/`.

    Raises:
        PrepareError: names every file that is missing, broken, or not of the published length.
    """
    folder = raw / "bbh" if (raw / "bbh").is_dir() else raw
    problems, rows, annotations = [], [], {}
    for task in bbh.TASKS.values():
        try:
            examples = read_task(folder / f"{task.name}.json")
        except PrepareError as error:
            problems.append(str(error))
            continue
        if options.check_counts and len(examples) != task.questions:
            problems.append(f"{task.name}.json holds {len(examples)} questions; published are {task.questions}")
        for i, example in enumerate(examples):
            name = f"{task.name}/{i}"
            rows.append({"question_id": name, "text": bbh.prompt(example["input"]), "category": task.name})
            annotations[name] = {"task": task.name, "input": example["input"], "target": example["target"]}
    if problems:
        raise PrepareError(f"BIG-bench-hard in {folder}: {'; '.join(problems)}")
    set_up(out, {}, "questions.jsonl", rows, options)
    write_json(out / "annotations.json", annotations)
    return len(rows)


def read_task(path: Path) -> list[dict[str, str]]:
    """The examples of a task file, each with `input` and `target`."""
    if not path.is_file():
        raise PrepareError(f"{path.name} is missing")
    try:
        examples = json.loads(path.read_text(encoding="utf-8"))["examples"]
        if not examples or not all(isinstance(e["input"], str) and isinstance(e["target"], str) for e in examples):
            raise ValueError("an example without input or target")
    except (ValueError, KeyError, TypeError) as error:
        raise PrepareError(f"{path.name} is not a task file with examples of input and target ({error})") from error
    return examples
