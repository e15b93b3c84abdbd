"""The one text table and the one Markdown table of all programs."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[object]], align: str = "", gap: str = "  ") -> str:
    """Rows as aligned columns, one line per row, without trailing blanks.

    Args:
        rows: cells of equal number in every row; printed with `str`. The first row may be a heading.
        align: one character per column, "<" or ">"; default: the first column to the left, the others to the right.
        gap: what stands between two columns.
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
