"""What a scoring run has measured so far, so that an interrupted run goes on where it stopped."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visual_region.importance import ScoreError

_HEAD = '{"settings": "'


class Journal:
    """Entries by key, in a file of JSON lines beside the result.

    Args:
        output: the result's path; the journal stands beside it.
        settings: all that the entries depend on; a journal of other settings is refused.

    Raises:
        ScoreError: there is a journal of another run, or another file under its name.
    """

    def __init__(self, output: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(f"{output}.journal")
        self.digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self.entries: dict[str, Any] = {}
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        head, *rows = self.path.read_bytes().split(b"\n")
        if not rows and _torn(head):
            # Killed before its first line was whole: nothing was kept yet.
            self.path.unlink()
            return
        try:
            found = json.loads(head)["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise ScoreError(
                f"{self.path} is no journal of a measurement; move it away, or give another --output"
            ) from error
        if found != self.digest:
            raise ScoreError(
                f"{self.path} was begun with another model, data file or settings; delete it to start anew, or give "
                "another --output"
            )
        good = len(head) + 1
        # The last row ends without a line's end: it is empty, or was cut off by a kill.
        for row in rows[:-1]:
            try:
                key, value = json.loads(row)
            except ValueError:
                break
            self.entries[key] = value
            good += len(row) + 1
        with open(self.path, "r+b") as file:
            file.truncate(min(good, self.path.stat().st_size))

    def add(self, entries: Mapping[str, Any]) -> None:
        """Keeps entries for good: when this returns, they survive a crash."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self.path.exists()
        with open(self.path, "a", encoding="utf-8") as file:
            if fresh:
                file.write(_HEAD + f'{self.digest}"}}\n')
            file.writelines(json.dumps(entry) + "\n" for entry in entries.items())
            file.flush()
            os.fsync(file.fileno())
        self.entries |= entries

    def close(self) -> None:
        """Removes the file, once the result is written."""
        self.path.unlink(missing_ok=True)


def _torn(head: bytes) -> bool:
    """Whether these bytes are the beginning of a first line (a power failure may leave zeros in their place)."""
    begun = head.rstrip(b"\0")
    return begun.startswith(_HEAD.encode()) or _HEAD.encode().startswith(begun)
