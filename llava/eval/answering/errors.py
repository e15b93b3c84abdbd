"""The error of an evaluation that cannot go on."""

from llava.names import some  # noqa: F401 - for callers that have not moved yet


class EvaluationError(ValueError):
    """Questions that cannot be answered, or answers of another run in the way."""
