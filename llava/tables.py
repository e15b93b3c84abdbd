"""Text and Markdown tables."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[object]], align: str = "", gap: str = "  ") -> str:
    """Rows of equal length as aligned columns, without trailing blanks; `gap` separates the columns.

    `align` has "<" or ">" per column; default: the first column to the left, the others to the right.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    columns = len(cells[0])
    align = align or "<" + ">" * (columns - 1)
    widths = [max(len(row[column]) for row in cells) for column in range(columns)]
    return "\n".join(
        gap.join(f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)).rstrip()
        for row in cells
    )


def markdown_table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, ending with a line break; a `|` inside a cell is escaped."""
    lines = [_markdown_row(head), "|---" * len(head) + "|", *map(_markdown_row, rows)]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"
