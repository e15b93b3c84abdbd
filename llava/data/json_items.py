"""Reads a long JSON list one item at a time; an error names line and column."""

import json
import re
from collections.abc import Iterator
from itertools import count
from typing import Any, TextIO

_READ_CHARS = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")


class _Window:
    """The part of a text file that is in memory, and a position in it."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self._decoder = json.JSONDecoder()
        self.text, self.at = "", 0
        # Of the first character in memory.
        self.line, self.column = 1, 1

    def more(self) -> bool:
        """Drops what is before the position and reads on; False at the end of the file."""
        new = self.file.read(max(_READ_CHARS, len(self.text) - self.at))
        self.line, self.column = self.place(self.at)
        self.text, self.at = self.text[self.at :] + new, 0
        return bool(new)

    def place(self, at: int) -> tuple[int, int]:
        """Line and column of a position."""
        lines = self.text.count("\n", 0, at)
        return self.line + lines, at - self.text.rfind("\n", 0, at) if lines else self.column + at

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self, what: str) -> Any:
        """The next value, behind which the position is then; raises `ValueError` that begins with `what` it is."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                at = error.pos - self.at
                # It may go on after the part that is in memory.
                if self.more():
                    continue
                raise self.wrong(f"{what} is not valid JSON: {error.msg}", at) from error
            length = end - self.at
            # So may a number: "1", "1." and "1e-" may be the beginning of another one.
            if len(self.text) - end > 2 or not self.more():
                self.at += length
                return value

    def wrong(self, why: str, at: int) -> ValueError:
        line, column = self.place(at)
        return ValueError(f"{why} at line {line}, column {column}")


def json_items(file: TextIO, inside: str = "") -> Iterator[Any]:
    """Items of a JSON list, or of JSON objects one after another (JSON lines); only one is in memory at a time.

    Args:
        inside: the key of the list in a JSON object, if the file holds one; keys before it are skipped.

    Raises:
        ValueError: anything that is not JSON, with item, line and column; an object without that list.
    """
    window = _Window(file)
    if inside:
        for key in _keys(window):
            if key == inside:
                break
            # A long list that is not wanted is not held in memory either.
            for _ in _list_items(window) if window.peek() == "[" else [window.value(repr(key))]:
                pass
        else:
            raise ValueError(f"it has no key {inside!r}")
    first = window.peek()
    if first not in ("[" if inside else "[{") or not first:
        begin = window.text[window.at : window.at + 20]
        raise ValueError(f"it begins with {begin!r}, not with a list" if first else "it is empty")
    if first == "[":
        yield from _list_items(window)
        if not inside and window.peek():
            line, column = window.place(window.at)
            raise ValueError(f"there is text after the list, at line {line}, column {column}; remove it")
        return
    for index in count():
        if not window.peek():
            return
        yield window.value(f"item {index}")


def _list_items(window: _Window) -> Iterator[Any]:
    """The items of the list at the position, which is behind the list afterwards."""
    window.at += 1
    if window.peek() == "]":
        window.at += 1
        return
    for index in count():
        yield window.value(f"item {index}")
        following = window.peek()
        if not following:
            raise ValueError(f"it ends inside the list, after item {index}")
        if following not in ",]":
            what = f"item {index} is not valid JSON: {following!r} follows it"
            raise window.wrong(f"{what}, where a comma or the end of the list should be", window.at)
        window.at += 1
        if following == "]":
            return


def json_members(file: TextIO) -> Iterator[tuple[str, Any]]:
    """Keys and values of a JSON object; only one value is in memory at a time. Raises `ValueError` as `json_items`."""
    window = _Window(file)
    for key in _keys(window):
        yield key, window.value(repr(key))


def _keys(window: _Window) -> Iterator[str]:
    """The keys of a JSON object; before the next one is asked for, the value must be read."""
    first = window.peek()
    if first != "{":
        begin = window.text[window.at : window.at + 20]
        raise ValueError(f"it begins with {begin!r}, not with an object" if first else "it is empty")
    window.at += 1
    ended = window.peek() == "}"
    while not ended:
        key = window.value("a key")
        if window.peek() != ":" or not isinstance(key, str):
            raise window.wrong(f"{key!r} is not a key with a value", window.at)
        window.at += 1
        yield key
        following = window.peek()
        if not following:
            raise ValueError(f"it ends inside the object, after {key!r}")
        if following not in ",}":
            raise window.wrong(f"{following!r} follows {key!r}, where a comma or the end should be", window.at)
        window.at += 1
        ended = following == "}"
