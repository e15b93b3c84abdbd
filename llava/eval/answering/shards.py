"""Answers of several processes: where each writes its part, and how the parts become one file."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from llava.eval.answering.answers_file import basic_record, check_target, record_path, whole_lines
from llava.eval.answering.errors import EvaluationError
from llava.files import write_json, written_whole
from llava.journal import journal_path


def part_path(answers: str | Path, num_chunks: int, chunk_idx: int) -> Path:
    """Where process `chunk_idx` of `num_chunks` writes its part of an answers file."""
    answers = Path(answers)
    return answers.with_name(f"{answers.stem}.chunks") / f"{num_chunks}_{chunk_idx}.jsonl"


def merge(parts: Sequence[str | Path], output: str | Path) -> int:
    """Joins parts in the order of the questions; returns the number of answers.

    Raises:
        EvaluationError: a part is missing, unfinished, of another run or of another number of questions than its
            record says; all such problems at once. Nothing is written then.
    """
    records, lines, problems = [], [], []
    for path in map(Path, parts):
        try:
            record, rows = _read_part(path)
        except EvaluationError as error:
            problems.append(str(error))
        else:
            records.append(record)
            lines.append(rows)
    if not parts:
        problems.append("there are no parts to join")
    problems = problems or _mismatches(parts, records)
    if problems:
        raise EvaluationError(f"{output} cannot be written: " + "; ".join(problems))

    total, count = records[0]["questions"], len(records)
    answers: dict[int, str] = {}
    skipped: list[dict[str, Any]] = []
    for record, rows in zip(records, lines, strict=True):
        skipped += record["skipped"]
        left_out = {entry["index"] for entry in record["skipped"]}
        places = [i for i in range(record["settings"]["chunk"][1], total, count) if i not in left_out]
        answers |= dict(zip(places, rows, strict=True))
    missing = set(range(total)) - set(answers) - {entry["index"] for entry in skipped}
    if missing:
        raise EvaluationError(f"{output} cannot be written: {len(missing)} of {total} questions have no answer")
    with written_whole(output) as aside:
        aside.write_text("".join(answers[i] + "\n" for i in sorted(answers)), encoding="utf-8")
    skipped.sort(key=lambda entry: entry["index"])
    basics = basic_record({**records[0]["settings"], "chunk": [1, 0]}, sorted(answers))
    write_json(record_path(Path(output)), records[0] | basics | {"skipped": skipped})
    return len(answers)


def _read_part(path: Path) -> tuple[dict[str, Any], list[str]]:
    journal = journal_path(path)
    if journal.exists():
        done = max(0, journal.read_bytes().count(b"\n") - 1)
        raise EvaluationError(f"{path} is unfinished: its process stopped after {done} answers; start it again")
    if not path.exists():
        raise EvaluationError(f"{path} does not exist: its process did not begin or wrote elsewhere; start it again")
    try:
        record = json.loads(record_path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise EvaluationError(f"{path} has no readable record {record_path(path).name} next to it") from error
    rows = whole_lines(path)
    if len(rows) != record["answered"] or sum(len(row.encode()) + 1 for row in rows) != path.stat().st_size:
        raise EvaluationError(
            f"{path} has {len(rows)} whole lines where its record says {record['answered']}; start its process again, "
            "which answers what is missing"
        )
    return record, rows


def _mismatches(parts: Sequence[str | Path], records: Sequence[dict[str, Any]]) -> list[str]:
    problems = []
    first = records[0]
    for path, record in zip(parts, records, strict=True):
        mine = {**record["settings"], "chunk": None, "questions in all": record["questions"]}
        other = {**first["settings"], "chunk": None, "questions in all": first["questions"]}
        names = [name for name in {**mine, **other} if mine.get(name) != other.get(name)]
        if names:
            problems.append(f"{path} was made with other settings than {parts[0]} ({', '.join(names)})")
    chunks = sorted(tuple(record["settings"]["chunk"]) for record in records)
    expected = [(chunks[0][0], i) for i in range(chunks[0][0])]
    if chunks != expected:
        have = ", ".join(f"{i} of {n}" for n, i in chunks)
        problems.append(f"the parts are chunks {have}; needed are all {expected[0][0]}, each once")
    return problems


def take_torchrun_part(args: argparse.Namespace) -> Path | None:
    """Under torchrun, gives this process its chunk, its device and its part's file.

    Returns:
        The answers file of all processes together; None without torchrun.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or args.num_chunks != 1:
        return None
    whole = Path(args.answers_file)
    check_target(whole)
    args.num_chunks, args.chunk_idx = world, int(os.environ["RANK"])
    args.answers_file = str(part_path(whole, args.num_chunks, args.chunk_idx))
    if args.device == "cuda":
        import torch

        if torch.cuda.is_available():
            args.device = f"cuda:{os.environ['LOCAL_RANK']}"
    return whole


def merge_when_complete(answers: Path, num_chunks: int) -> None:
    """Joins the parts if this process was the last to finish; else leaves it to the last."""
    parts = [part_path(answers, num_chunks, i) for i in range(num_chunks)]
    with FileLock(parts[0].parent / "lock"):
        if all(part.exists() and record_path(part).exists() and not journal_path(part).exists() for part in parts):
            print(f"{merge(parts, answers)} answers of {num_chunks} processes are in {answers}")
