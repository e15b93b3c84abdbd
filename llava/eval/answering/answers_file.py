"""An answers file that appears whole, with a journal beside it until then and a record of its run afterwards."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from llava.eval.answering.errors import EvaluationError, some
from llava.files import write_json, written_whole

if TYPE_CHECKING:
    # The launcher joins answers without waiting for torch, which questions need for their images.
    from llava.eval.answering.questions import Question


def journal_path(answers: Path) -> Path:
    """Where the answers of an unfinished run are kept."""
    return answers.with_name(f"{answers.name}.journal")


def record_path(answers: Path) -> Path:
    """Where a finished run says what it answered, with which settings, and what it left out."""
    return answers.with_name(f"{answers.stem}.run.json")


def check_target(answers: Path) -> None:
    """Makes the folder of an answers file that is to be written.

    Raises:
        EvaluationError: the file, or what is written beside it, cannot be: told before anything is answered.
    """
    for path in (answers, journal_path(answers), record_path(answers)):
        if path.is_dir():
            raise EvaluationError(f"--answers-file {answers}: {path} is a folder; give the name of a file")
    try:
        answers.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(
            f"--answers-file {answers}: the folder {answers.parent} cannot be made ({error.strerror})"
        ) from error
    if not os.access(answers.parent, os.W_OK | os.X_OK):
        raise EvaluationError(f"--answers-file {answers}: nothing may be written into {answers.parent}")


def whole_lines(answers: Path) -> list[str]:
    """The lines of an answers file up to the first that is cut off or no JSON."""
    lines = []
    *ended, _ = answers.read_bytes().split(b"\n")
    for line in ended:
        try:
            if not isinstance(json.loads(line), dict):
                break
            lines.append(line.decode())
        except ValueError:
            break
    return lines


def skipped_before(answers: Path, questions: Sequence[Question]) -> list[Question]:
    """The questions that a finished run, as its record says, left out for want of their images."""
    try:
        skipped = json.loads(record_path(answers).read_text(encoding="utf-8"))["skipped"]
        places = {(entry["index"], entry["image"]) for entry in skipped}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [q for q in questions if q.image and (q.index, q.image) in places]


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
        EvaluationError: a file that cannot be written; a journal of another run, of a run still going on, or damaged.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], part: tuple[int, int] = (1, 0)) -> None:
        self.path = Path(path)
        self.journal = journal_path(self.path)
        # What JSON makes of the settings is what a journal gives back.
        self.settings = json.loads(json.dumps({**settings, "chunk": list(part)}, default=str))
        self.lines: dict[int, str] = {}
        self._file: IO[bytes] | None = None
        check_target(self.path)
        if self.journal.exists():
            self._open()
            self._read()

    def add(self, answered: Mapping[int, str]) -> None:
        """Keeps answers for good: when this returns, they survive a crash."""
        if self._file is None:
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
        """Whether the file is there already, answers these questions, and was made with the same settings.

        Of a file that was cut off or damaged since, the answers before the damage are taken up.
        """
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
        lines = whole_lines(self.path)
        size = sum(len(line.encode()) + 1 for line in lines)
        if len(lines) == len(questions) and size == self.path.stat().st_size:
            return True
        kept = {}
        for question, line in zip(questions, lines, strict=False):
            if json.loads(line).get("question_id") != question.question_id:
                break
            kept[question.index] = line
        print(
            f"{self.path} was cut off or changed since it was finished: it has {len(lines)} whole lines where its "
            f"record says {len(questions)}; {len(kept)} of its answers are taken up, and the others made anew"
        )
        if kept:
            self.add(kept)
        return False

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
        differ = _differences(begun, self.settings)
        if differ:
            raise self._refuse(f"begun with another model, question file or settings ({some(differ)})")

    def _refuse(self, why: str) -> EvaluationError:
        self.close()
        return EvaluationError(
            f"{self.journal} cannot be taken up: {why}; delete it to start anew, or use another --answers-file"
        )


def _differences(begun: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What settings differ in, and of those that hold further ones in which of these."""
    found = []
    for name in {**begun, **now}:
        old, new = begun.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [f"{name}: {inner}" for inner in _differences(old, new)]
        else:
            found.append(f"{name} was {old!r}, now {new!r}")
    return found
