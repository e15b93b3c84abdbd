"""An answers file that appears whole, with a journal beside it until then and a record of its run afterwards."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from llava.eval.errors import EvaluationError
from llava.files import write_json, written_whole

if TYPE_CHECKING:
    # The launcher joins answers without waiting for torch, which questions need for their images.
    from llava.eval.questions import Question


def journal_path(answers: Path) -> Path:
    """Where the answers of an unfinished run are kept."""
    return answers.with_name(f"{answers.name}.journal")


def record_path(answers: Path) -> Path:
    """Where a finished run says what it answered, with which settings, and what it left out."""
    return answers.with_name(f"{answers.stem}.run.json")


def basic_record(settings: Mapping[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """What every record says: with which settings which questions of the file were answered."""
    digest = hashlib.sha256(",".join(map(str, places)).encode()).hexdigest()[:16]
    return {"settings": dict(settings), "answered": len(places), "which": digest}


class AnswersFile:
    """Keeps answers as they come and writes the file once all are there.

    The journal's first line holds the settings; each further one an answer with its question's place. A line counts
    once its line break is written.

    Args:
        settings: all that the answers depend on; a journal of other settings is refused.
        part: `(num_chunks, chunk_idx)` of the questions that this file answers.

    Raises:
        EvaluationError: a journal of another run, of a run still going on, or damaged.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], part: tuple[int, int] = (1, 0)) -> None:
        self.path = Path(path)
        self.journal = journal_path(self.path)
        # What JSON makes of the settings is what a journal gives back.
        self.settings = json.loads(json.dumps({**settings, "chunk": list(part)}, default=str))
        self.lines: dict[int, str] = {}
        self._file: IO[bytes] | None = None
        if self.journal.exists():
            self._open()
            self._read()

    def add(self, answered: Mapping[int, str]) -> None:
        """Keeps answers for good: when this returns, they survive a crash."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
            self._read()
        rows = [json.dumps({"index": index, "line": line}) for index, line in answered.items()]
        self._append("".join(row + "\n" for row in rows))
        self.lines |= answered

    def finish(self, questions: Sequence[Question], record: Mapping[str, Any] | None = None) -> None:
        """Writes the answers in the order of the questions, then the record, and removes the journal."""
        missing = [q.index for q in questions if q.index not in self.lines]
        if missing:
            raise EvaluationError(f"{len(missing)} questions have no answer yet; first: line {missing[0] + 1}")
        with written_whole(self.path) as aside:
            aside.write_text("".join(self.lines[q.index] + "\n" for q in questions), encoding="utf-8")
        write_json(record_path(self.path), self._record(questions) | dict(record or {}))
        self.journal.unlink(missing_ok=True)
        self.close()

    def finished_before(self, questions: Sequence[Question]) -> bool:
        """Whether the file is there already, answers these questions, and was made with the same settings."""
        record = record_path(self.path)
        if self.lines or not self.path.is_file() or not record.is_file():
            return False
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
        except ValueError:
            return False
        expected = self._record(questions)
        if any(found.get(key) != value for key, value in expected.items()):
            return False
        with open(self.path, "rb") as file:
            return sum(1 for _ in file) == len(questions)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _record(self, questions: Sequence[Question]) -> dict[str, Any]:
        return basic_record(self.settings, [q.index for q in questions])

    def _open(self) -> None:
        self._file = open(self.journal, "a+b")  # noqa: SIM115 - held, with its lock, as long as the run lasts
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            self.close()
            raise EvaluationError(
                f"another process is writing {self.journal}; wait for it, or use another --answers-file"
            ) from error

    def _append(self, text: str) -> None:
        self._file.write(text.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> None:
        """Takes up what the journal holds; a half-written last line is cut off."""
        self._file.seek(0)
        *rows, torn = self._file.read().split(b"\n")
        if torn:
            print(f"the last line of {self.journal} was half written and is dropped")
            self._file.truncate(sum(len(row) + 1 for row in rows))
        if not rows:
            self._append(json.dumps({"settings": self.settings}) + "\n")
            return
        try:
            self._check_settings(json.loads(rows[0])["settings"])
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, EvaluationError):
                raise
            raise self._refuse("it does not begin with the settings of a run") from error
        for number, row in enumerate(rows[1:], start=2):
            try:
                entry = json.loads(row)
                self.lines[entry["index"]] = entry["line"]
            except (ValueError, KeyError, TypeError) as error:
                raise self._refuse(f"line {number} is damaged") from error

    def _check_settings(self, begun: Mapping[str, Any]) -> None:
        names = [name for name in {**begun, **self.settings} if begun.get(name) != self.settings.get(name)]
        if names:
            shown = "; ".join(f"{name} was {begun.get(name)!r}, now {self.settings.get(name)!r}" for name in names)
            raise self._refuse(f"begun with another model, question file or settings ({shown})")

    def _refuse(self, why: str) -> EvaluationError:
        self.close()
        return EvaluationError(
            f"{self.journal} cannot be taken up: {why}; delete it to start anew, or use another --answers-file"
        )
