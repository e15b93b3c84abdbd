"""Reads the user's text and JSON files: an error names the file, and line and column in it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_text(path: str | Path, what: str = "", error: type[ValueError] = ValueError) -> str:
    """The text of a UTF-8 file; `what` it is comes before its name in an `error`."""
    name = f"{what} {path}".strip()
    try:
        return Path(path).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise error(f"{name} does not exist") from cause
    except IsADirectoryError as cause:
        raise error(f"{name} is a folder, not a file") from cause
    except UnicodeDecodeError as cause:
        line = cause.object.count(b"\n", 0, cause.start) + 1
        why = f"byte {cause.start}, in line {line}, is 0x{cause.object[cause.start]:02x}"
        raise error(f"{name} is not UTF-8 text ({why}); is it whole?") from cause


def read_json(path: str | Path, what: str = "", error: type[ValueError] = ValueError) -> Any:
    """The value of a JSON file."""
    text = read_text(path, what, error)
    name = f"{what} {path}".strip()
    if not text.strip():
        raise error(f"{name} is empty")
    try:
        return json.loads(text)
    except ValueError as cause:
        raise error(f"{name} is not valid JSON ({cause}); is it whole?") from cause


def read_json_lines(
    path: str | Path, what: str = "", error: type[ValueError] = ValueError, hint: str = ""
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line that is not blank; an error about a line ends with the hint."""
    # Not splitlines(): texts may hold U+2028 and the like, which end no line of JSON.
    for number, line in enumerate(read_text(path, what, error).split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as cause:
                why = f"{cause.msg} at column {cause.colno}" if isinstance(cause, json.JSONDecodeError) else cause
                raise error(f"{what} {path}, line {number} is not valid JSON: {why}{hint}".strip()) from cause
            if not isinstance(row, dict):
                raise error(f"{what} {path}, line {number} is not a JSON object{hint}".strip())
            yield number, row
