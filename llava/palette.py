"""The colours of all pictures."""

MARKED, OTHER, PLAIN, EMPTY, LINE = "#c8553d", "#3b6ea5", "#9aa7b5", "#eef1f4", "#333333"
"""What a picture is about; a second series; the rest; nothing; whiskers and texts."""
SERIES = (
    *(MARKED, OTHER, "#d99a2b", "#4f8f6b", "#7d5a9b"),
    *("#2f3e4e", "#b97a9a", "#5fa8bd", "#8a6d3b", "#a3ad4a"),
)
"""Colours of series of equal weight, such as checkpoints that are compared."""
