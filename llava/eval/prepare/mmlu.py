"""MMLU: the CSV files of data.tar to a question file with five examples a question."""

from pathlib import Path

from llava.eval.benchmarks import mmlu
from llava.eval.prepare.common import Options, PrepareError, check_published, find, set_up
from llava.files import write_json


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl, shots.json and annotations.json.

    A line of the question file has `question_id` ("anatomy/0"), `text` (the paper's prompt with five examples),
    `category` (the subject), and `question` and `choices` by themselves, from which other prompts are made. shots.json
    holds the first five questions of each subject's dev file; annotations.json letter and choices by question id.

    Args:
        raw: the unpacked data.tar: a folder with `dev` and `test`, or one that holds it as `data/`.
        options: without its counts checked, the subjects that are there are taken.

    Raises:
        PrepareError: a missing or broken file, with its line; other counts than published.
    """
    folder = find(raw, "data/test", "test").parent
    subjects = list(mmlu.SUBJECTS)
    if not options.check_counts:
        subjects = [subject for subject in subjects if (folder / "test" / f"{subject}_test.csv").is_file()]
    rows, annotations, shots = [], {}, {}
    try:
        for subject in subjects:
            examples = mmlu.read_split(folder, "dev", subject)[: mmlu.SHOTS]
            if len(examples) < mmlu.SHOTS:
                raise mmlu.MMLUDataError(
                    f"{folder}/dev/{subject}_dev.csv holds {len(examples)} questions; {mmlu.SHOTS} are needed"
                )
            shots[subject] = [{"question": e.question, "choices": e.choices, "answer": e.answer} for e in examples]
            for i, item in enumerate(mmlu.read_split(folder, "test", subject)):
                name = f"{subject}/{i}"
                text = mmlu.generation_prompt(subject, examples, item)
                rows.append(
                    {"question_id": name, "text": text, "category": subject}
                    | {"question": item.question, "choices": list(item.choices)}
                )
                annotations[name] = {"answer": item.answer, "choices": item.choices}
    except mmlu.MMLUDataError as error:
        raise PrepareError(str(error)) from error
    if not rows:
        raise PrepareError(f"{folder}/test holds no file of a known subject (SUBJECT_test.csv)")
    check_published("mmlu", len(rows), options)
    set_up(out, {}, "questions.jsonl", rows, options)
    write_json(out / "shots.json", shots)
    write_json(out / "annotations.json", annotations)
    return len(rows)
