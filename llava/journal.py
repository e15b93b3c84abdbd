"""The finished entries of a long run, kept on disk to resume it."""

import hashlib
import json
import os
import weakref
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from llava.files import full_disk_explained, open_locked
from llava.names import some

_HEAD = b'{"settings": '
_SHOWN = 100
"""Characters of a setting in a message."""


class JournalError(ValueError):
    """A journal that cannot be continued."""


def journal_path(output: str | Path) -> Path:
    """The journal of a result, which exists until the result is written."""
    return Path(f"{output}.journal")


def settings_digest(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings as JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class Journal:
    """Entries by key, in a file of JSON lines next to the result; it is locked until it is closed.

    The first line holds the settings of the run, each further line `[key, value]`. A last line without a line break,
    which a kill leaves, is dropped. Until the first entry the file is empty. `close`, or the end of the program,
    removes a file without entries.

    Args:
        output: the path of the result.
        settings: everything that the entries depend on.
        older: the same as an earlier version recorded it; such a journal is continued too.
        what: the flag that names the result, for messages.

    Raises:
        JournalError: the journal is damaged, has other settings, or is open in another process.
    """

    def __init__(
        self,
        output: str | Path,
        settings: Mapping[str, Any],
        what: str = "--output",
        older: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = journal_path(output)
        # The settings as read from JSON, to compare equal to those of the file.
        self._forms: list[dict[str, Any]] = json.loads(json.dumps([settings, older or settings], default=str))
        self.settings = self._forms[0]
        self.entries: dict[Any, Any] = {}
        self._what = what
        self._file = self._locked()
        # Called at the end of the program too.
        self.close = weakref.finalize(self, _release, self._file, self.path, self.entries)
        try:
            self._read()
        except JournalError:
            self._file.close()
            raise

    @property
    def digest(self) -> str:
        """SHA-256 of the settings."""
        return self.digests[0]

    @property
    def digests(self) -> list[str]:
        """SHA-256 of the settings, and of what an earlier version recorded."""
        return list(map(settings_digest, self._forms))

    def add(self, entries: Mapping[Any, Any]) -> None:
        """Writes entries to the disk; they then survive a crash."""
        size = self._file.tell()
        rows = [*([] if size else [{"settings": self.settings}]), *map(list, entries.items())]
        left = memoryview("".join(json.dumps(row) + "\n" for row in rows).encode())
        with full_disk_explained(self.path, None):
            try:
                while left:
                    left = left[self._file.write(left) :]
                os.fsync(self._file.fileno())
            except OSError:
                # An entry in part would stand before the next one.
                self._cut(size)
                raise
        self.entries |= entries

    def remove(self) -> None:
        """Removes the file, once the result is written."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def _locked(self) -> FileIO:
        try:
            return open_locked(self.path)
        except BlockingIOError as error:
            raise JournalError(f"{error}; wait for it, or use another {self._what}") from error

    def _read(self) -> None:
        head, *rows = self.path.read_bytes().split(b"\n")
        if not rows:
            # A kill before the first line was complete, or the zeros of a power failure.
            begun = head.rstrip(b"\0")[: len(_HEAD)]
            if not _HEAD.startswith(begun):
                raise self._refusal("it is not a journal: it does not begin with the settings of a run")
            self._cut(0)
            return
        self._check_settings(head)
        if torn := rows.pop():
            print(f"the last line of {self.path} was half written and is dropped")
            self._cut(self._file.tell() - len(torn))
        for number, row in enumerate(rows, start=2):
            try:
                entry = json.loads(row)
                # Journals of answers used to hold objects with the place of a question and its answer line.
                key, value = entry.values() if isinstance(entry, dict) else entry
                self.entries[key] = value
            except (ValueError, TypeError) as error:
                raise self._refusal(f"line {number} is damaged") from error

    def _cut(self, size: int) -> None:
        self._file.truncate(size)
        self._file.seek(size)

    def _check_settings(self, head: bytes) -> None:
        try:
            begun = json.loads(head)["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._refusal("it is not a journal: it does not begin with the settings of a run") from error
        # Journals of scores used to hold only the digest.
        if begun not in (*self._forms, *self.digests):
            known = isinstance(begun, dict)
            differ = min((differences(begun, form) for form in self._forms), key=len) if known else []
            named = f" ({some(differ)})" if differ else ""
            raise self._refusal(f"begun with another model, data file or settings{named}")

    def _refusal(self, why: str) -> JournalError:
        return JournalError(
            f"{self.path} cannot be continued: {why}; delete it to start again, or use another {self._what}"
        )


def _release(file: FileIO, path: Path, entries: Mapping[Any, Any]) -> None:
    """Removes a journal without entries and releases its lock, in this order, so that no other process's is removed."""
    if not file.closed:
        if not entries:
            path.unlink(missing_ok=True)
        file.close()


def differences(begun: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences of two settings, including nested ones."""
    found = []
    for name in {**begun, **now}:
        old, new = begun.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [f"{name}: {inner}" for inner in differences(old, new)]
        else:
            found.append(f"{name} was {_shown(old)}, now {_shown(new)}")
    return found


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
