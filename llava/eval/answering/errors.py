"""The error of an evaluation that cannot go on, and names in a message."""

from collections.abc import Iterable

_NAMED = 5


class EvaluationError(ValueError):
    """Questions that cannot be answered, or answers of another run in the way."""


def some(names: Iterable[str]) -> str:
    """The first few names, with dots where there are more."""
    names = list(names)
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
