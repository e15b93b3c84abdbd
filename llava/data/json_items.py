"""Reads a long JSON list one item at a time; an error names line and column."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

_READ_CHARS = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")


class _Window:
    """The part of a text file that is in memory, and a position in it."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
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


def json_items(file: TextIO) -> Iterator[Any]:
    """Items of a JSON list, or of JSON objects one after another (JSON lines); only one is in memory at a time.

    Raises:
        ValueError: anything that is not JSON, with item, line and column.
    """
    window, decoder, index = _Window(file), json.JSONDecoder(), 0

    def wrong(why: str, at: int) -> ValueError:
        line, column = window.place(at)
        return ValueError(f"item {index} is not valid JSON: {why} at line {line}, column {column}")

    if (first := window.peek()) not in ("[", "{"):
        begin = window.text[window.at : window.at + 20]
        raise ValueError(f"it begins with {begin!r}, not with a list" if first else "it is empty")
    in_list = first == "["
    window.at += in_list
    ended = in_list and window.peek() == "]"
    while not ended:
        window.peek()
        while True:
            try:
                item, window.at = decoder.raw_decode(window.text, window.at)
                break
            except json.JSONDecodeError as error:
                at = error.pos - window.at
                # The item may go on after the part that is in memory.
                if not window.more():
                    raise wrong(error.msg, at) from error
        yield item
        following = window.peek()
        if in_list and following == ",":
            window.at += 1
        elif in_list and not following:
            raise ValueError(f"it ends inside the list, after item {index}")
        elif in_list and following != "]":
            raise wrong(f"{following!r} follows it, where a comma or the end of the list should be", window.at)
        ended = following == "]" if in_list else not following
        index += 1
    if in_list:
        window.at += 1
        if window.peek():
            line, column = window.place(window.at)
            raise ValueError(f"there is text after the list, at line {line}, column {column}; remove it")
