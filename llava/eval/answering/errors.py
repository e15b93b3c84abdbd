"""The error of an evaluation that cannot go on."""


class EvaluationError(ValueError):
    """Questions that cannot be answered, or answers of another run in the way."""
