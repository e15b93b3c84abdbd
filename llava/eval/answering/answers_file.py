"""An answers file that appears whole, with a journal next to it until then and a record of its run afterwards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.eval.answering.errors import EvaluationError
from llava.files import write_json, written_whole
from llava.journal import Journal, journal_path
from llava.names import agree, count
from llava.outputs import FileKind, Paths, check_files

if TYPE_CHECKING:
    # The launcher joins answers without waiting for torch, which reading questions imports.
    from llava.eval.answering.questions import Question


def record_path(answers: Path) -> Path:
    """Where a finished run records what it answered, with which settings, and what it left out."""
    return answers.with_name(f"{answers.stem}.run.json")


def read_record(answers: Path) -> dict[str, Any]:
    """The record of a finished run; empty if it is missing or not readable."""
    try:
        return dict(json.loads(record_path(answers).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


@dataclass(frozen=True)
class _Answers(FileKind):
    def recognises(self, path: Path) -> bool:
        # The record tells what a damaged file was.
        return bool(read_record(path)) or super().recognises(path)


ANSWERS = _Answers("an answers file", ".jsonl", frozenset({"question_id", "text", "answer_id"}))
RECORD = FileKind("a record of a run", keys=frozenset({"settings", "answered"}))


def check_answers(answers: Path, inputs: Paths = (), flag: str = "--answers-file") -> None:
    """Raises `OutputError` if the place is one of `inputs`, or holds anything but answers and their record."""
    check_files({flag: (answers, ANSWERS), f"the record next to {flag},": (record_path(answers), RECORD)}, inputs)


def check_target(answers: Path) -> None:
    """Makes the folder of an answers file; raises `EvaluationError` or `OutputError` if it cannot be written."""
    for path in (answers, journal_path(answers), record_path(answers)):
        if path.is_dir():
            raise EvaluationError(f"--answers-file {answers}: {path} is a folder; give the name of a file")
    folder = f"--answers-file {answers}: the folder {answers.parent}"
    try:
        answers.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(f"{folder} cannot be made ({error.strerror})") from error
    if not os.access(answers.parent, os.W_OK | os.X_OK):
        raise EvaluationError(f"{folder} is not writable")
    check_answers(answers)


def whole_lines(answers: Path) -> tuple[list[str], bool]:
    """The lines of an answers file up to the first that is cut off or is no JSON object; whether these are all."""
    lines = []
    *ended, rest = answers.read_bytes().split(b"\n")
    for line in ended:
        try:
            if not isinstance(json.loads(line), dict):
                break
            lines.append(line.decode())
        except ValueError:
            break
    return lines, len(lines) == len(ended) and not rest


def _is_answer(place: Any, line: Any) -> bool:
    try:
        return isinstance(place, int) and isinstance(json.loads(line), dict)
    except (ValueError, TypeError):
        return False


def basic_record(settings: Mapping[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """The part of every record that says which questions were answered, and with which settings."""
    digest = hashlib.sha256(",".join(map(str, places)).encode()).hexdigest()[:16]
    return {"settings": dict(settings), "answered": len(places), "which": digest}


@dataclass
class HeldAnswers:
    """Answers in memory, in the place of an `AnswersFile`; `lines`: answer lines by the place of their question."""

    lines: dict[int, str] = field(default_factory=dict)

    def add(self, answered: Mapping[int, str]) -> None:
        self.lines |= answered


class AnswersFile:
    """Keeps answers as they come, in a journal, and writes the file once all questions are answered.

    Args:
        settings: all that the answers depend on; a journal of other settings is refused.
        part: `(num_chunks, chunk_idx)` of the questions that this file answers.

    Raises:
        EvaluationError, JournalError: a file that cannot be written; a journal that cannot be continued.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], part: tuple[int, int] = (1, 0)) -> None:
        self.path = Path(path)
        check_target(self.path)
        self._journal = Journal(self.path, {**settings, "chunk": list(part)}, "--answers-file")
        self.journal, self.settings = self._journal.path, self._journal.settings
        self.close = self._journal.close
        if wrong := [place for place, line in self.lines.items() if not _is_answer(place, line)]:
            self.close()
            damaged = f"{count(len(wrong), 'entry', 'entries')} of {self.journal} (first: {wrong[0]!r})"
            raise EvaluationError(f"{damaged} is not an answer to a question; delete that file to start again")

    @property
    def lines(self) -> dict[int, str]:
        """Answer lines by the place of their question."""
        return self._journal.entries

    def add(self, answered: Mapping[int, str]) -> None:
        """Keeps answers for good: when this returns, they survive a crash."""
        self._journal.add(answered)

    def finish(self, questions: Sequence[Question], record: Mapping[str, Any] | None = None) -> None:
        """Writes the answers in the order of the questions, then the record, and removes the journal."""
        missing = [q.index for q in questions if q.index not in self.lines]
        if missing:
            raise EvaluationError(
                f"{count(len(missing), 'question has', 'questions have')} no answer yet; first: line {missing[0] + 1}"
            )
        with written_whole(self.path) as aside:
            aside.write_text("".join(self.lines[q.index] + "\n" for q in questions), encoding="utf-8")
        basics = basic_record(self.settings, [q.index for q in questions])
        write_json(record_path(self.path), basics | dict(record or {}))
        self._journal.remove()

    def finished_before(self, questions: Sequence[Question]) -> bool:
        """Whether the file is there and whole, for these questions and settings; of a damaged one the rest is kept.

        A journal of these settings next to a whole file is of a run that others have finished; it is removed.
        """
        expected = basic_record(self.settings, [q.index for q in questions])
        found = read_record(self.path)
        if not self.path.is_file() or any(found.get(key) != value for key, value in expected.items()):
            return False
        lines, whole = whole_lines(self.path)
        if whole and len(lines) == len(questions):
            if self.lines:
                print(f"{self.journal} is removed: {self.path} has all answers")
                self._journal.remove()
            return True
        if self.lines:
            return False
        kept = {}
        for question, line in zip(questions, lines, strict=False):
            if json.loads(line).get("question_id") != question.question_id:
                break
            kept[question.index] = line
        print(
            f"{self.path} was cut off or changed since it was finished: it has {count(len(lines), 'whole line')} where "
            f"its record says {len(questions)}; {len(kept)} of its answers {agree(len(kept), 'is', 'are')} kept, the "
            "others are made again"
        )
        if kept:
            self.add(kept)
        return False
