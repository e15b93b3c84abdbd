"""The error of everything that scores layers."""


class ScoreError(ValueError):
    """Layers that cannot be scored, or a score file that does not fit; the message says what to do instead."""
