"""Pickles of plain data (lists, dicts, texts, numbers), as some old downloads are; whatever names code is refused."""

import pickle
from pathlib import Path
from typing import Any

from llava.eval.prepare.common import PrepareError


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not plain data")


def load_plain_pickle(path: Path) -> Any:
    """The content of a pickle, also one of Python 2; nothing in the file can name a class or function, let alone run.

    Raises:
        PrepareError: a broken pickle, or one that holds more than plain data.
    """
    try:
        with open(path, "rb") as file:
            return _PlainUnpickler(file, encoding="utf-8").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise PrepareError(f"{path} cannot be read: {error or 'it is cut off'}") from error
