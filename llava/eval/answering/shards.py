"""Answers of several processes: where each writes its part, and how the parts become one file."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from llava.eval.answering.answers_file import (
    basic_record,
    check_answers,
    check_target,
    read_record,
    record_path,
    whole_lines,
)
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
        EvaluationError: all parts that are missing, unfinished, damaged or of another run. Nothing is written then.
    """
    check_answers(Path(output), parts, "--output")
    found, problems = [], [] if parts else ["there are no parts to join"]
    for path in map(Path, parts):
        try:
            found.append(_read_part(path))
        except EvaluationError as error:
            problems.append(str(error))
    problems = problems or _mismatches(parts, [record for record, _ in found])
    if problems:
        raise EvaluationError(f"{output} cannot be written: " + "; ".join(problems))

    first = found[0][0]
    answers: dict[int, str] = {}
    skipped: dict[int, dict[str, Any]] = {}
    for record, lines in found:
        left_out = {entry["index"]: entry for entry in record["skipped"]}
        places = range(record["settings"]["chunk"][1], first["questions"], len(found))
        answers |= zip([i for i in places if i not in left_out], lines, strict=True)
        skipped |= left_out
    with written_whole(output) as aside:
        aside.write_text("".join(answers[i] + "\n" for i in sorted(answers)), encoding="utf-8")
    basics = basic_record({**first["settings"], "chunk": [1, 0]}, sorted(answers))
    write_json(record_path(Path(output)), first | basics | {"skipped": [skipped[i] for i in sorted(skipped)]})
    return len(answers)


def _read_part(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Record and answer lines."""
    journal = journal_path(path)
    if journal.exists():
        done = max(0, journal.read_bytes().count(b"\n") - 1)
        raise EvaluationError(f"{path} is unfinished: its process stopped after {done} answers; start it again")
    if not path.exists():
        raise EvaluationError(f"{path} does not exist: its process did not begin or wrote elsewhere; start it again")
    record = read_record(path)
    if not record:
        raise EvaluationError(f"{path} has no readable record {record_path(path).name} next to it")
    lines, whole = whole_lines(path)
    if not whole or len(lines) != record["answered"]:
        raise EvaluationError(
            f"{path} has {len(lines)} whole lines where its record says {record['answered']}; start its process again, "
            "which answers what is missing"
        )
    return record, lines


def _mismatches(parts: Sequence[str | Path], records: Sequence[dict[str, Any]]) -> list[str]:
    problems = []
    settings = [{**record["settings"], "chunk": None, "questions in all": record["questions"]} for record in records]
    for path, mine in zip(parts, settings, strict=True):
        names = [name for name in {**mine, **settings[0]} if mine.get(name) != settings[0].get(name)]
        if names:
            problems.append(f"{path} was made with other settings than {parts[0]} ({', '.join(names)})")
    chunks = sorted(tuple(record["settings"]["chunk"]) for record in records)
    needed = chunks[0][0]
    if chunks != [(needed, i) for i in range(needed)]:
        have = ", ".join(f"{i} of {n}" for n, i in chunks)
        problems.append(f"the parts are chunks {have}; needed are all {needed}, each once")
    return problems


def take_torchrun_part(args: argparse.Namespace) -> Path | None:
    """Under torchrun, sets this process's part in `args`, and returns the answers file of all processes."""
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
    """Joins the parts if this process is the last to finish."""
    parts = [part_path(answers, num_chunks, i) for i in range(num_chunks)]
    with FileLock(parts[0].parent / "lock"):
        if all(part.exists() and record_path(part).exists() and not journal_path(part).exists() for part in parts):
            print(f"{merge(parts, answers)} answers of {num_chunks} processes are in {answers}")
