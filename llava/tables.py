"""Tables as text, Markdown and LaTeX."""

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


_LATEX = {
    **{sign: f"\\{sign}" for sign in "%_&#${}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"$<$", ">": r"$>$", "|": r"$|$", "±": r"$\pm$", "×": r"$\times$", "−": r"$-$", "–": "--"},
}
"""What LaTeX reads as commands, or shows as other signs."""


def latex_text(text: object) -> str:
    """Text as LaTeX shows it."""
    return "".join(_LATEX.get(sign, sign) for sign in str(text))


def latex_table(head: Sequence[str], blocks: Sequence[Sequence[Sequence[str]]]) -> str:
    """A `tabular` with the rules of the package booktabs, ending with a line break; there is a rule between blocks.

    Args:
        head: the headings, as LaTeX.
        blocks: rows of cells, as LaTeX. The first column is to the left, the others to the right.
    """
    lines = [f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", "\\toprule", _latex_row(head)]
    for block in blocks:
        lines += ["\\midrule", *map(_latex_row, block)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
