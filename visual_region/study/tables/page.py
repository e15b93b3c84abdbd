"""A table of a study on disk: Markdown, LaTeX, CSV and JSON with the same numbers."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.files import write_json, written_whole
from llava.tables import latex_table, latex_text, markdown_table

NONE = "–"


@dataclass(frozen=True)
class Text:
    """A cell: a value, with its interval in LaTeX below it."""

    value: str
    interval: str = ""
    bold: bool = False

    def markdown(self) -> str:
        value = f"**{self.value}**" if self.bold else self.value
        return f"{value} ({self.interval})" if self.interval else value

    def latex(self) -> str:
        return f"\\textbf{{{latex_text(self.value)}}}" if self.bold else latex_text(self.value)

    def latex_below(self) -> str:
        return f"{{\\scriptsize ({latex_text(self.interval)})}}" if self.interval else ""


@dataclass(frozen=True)
class Grid:
    """Rows and columns under a caption.

    Attributes:
        blocks: rows that belong together; all are as long as `head`.
    """

    caption: str
    head: Sequence[str]
    blocks: Sequence[Sequence[Sequence[Text]]]

    def markdown(self) -> str:
        rows = [[cell.markdown() for cell in row] for block in self.blocks for row in block]
        return f"{self.caption}\n\n{markdown_table(self.head, rows)}"

    def latex(self) -> str:
        """A `table*`; the intervals of a row are a line of their own."""
        blocks = []
        for block in self.blocks:
            lines = []
            for row in block:
                lines.append([cell.latex() for cell in row])
                if any(cell.interval for cell in row):
                    lines.append([cell.latex_below() for cell in row])
            blocks.append(lines)
        table = latex_table([latex_text(text) for text in self.head], blocks)
        caption = f"\\caption{{{latex_text(self.caption)}}}"
        return f"\\begin{{table*}}\n\\centering\n\\small\n{caption}\n{table}\\end{{table*}}\n"


@dataclass(frozen=True)
class Page:
    """A table with all its numbers.

    Attributes:
        name: of its files.
        grids: what is printed.
        notes: what is missing, and what a reader must know.
        records: one line for each number of CSV and JSON; all have the same keys.
    """

    name: str
    title: str
    grids: Sequence[Grid]
    notes: Sequence[str]
    records: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        notes = ["\n".join(f"- {note}" for note in self.notes) + "\n"] if self.notes else []
        return "\n".join([f"# {self.title}\n", *(grid.markdown() for grid in self.grids), *notes])

    def latex(self) -> str:
        notes = "".join(f"% {note}\n" for note in self.notes)
        return f"% {self.title}. Needs \\usepackage{{booktabs}}.\n{notes}" + "\n".join(g.latex() for g in self.grids)

    def csv(self) -> str:
        """One line for each record; a list is joined with blanks, and what there is not is empty."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(self.records[0]), lineterminator="\n")
        writer.writeheader()
        for record in self.records:
            flat = {key: " ".join(map(str, v)) if isinstance(v, list | tuple) else v for key, v in record.items()}
            writer.writerow(flat)
        return stream.getvalue()

    def write(self, folder: Path) -> list[Path]:
        """Writes the four files; returns their paths."""
        texts = {".md": self.markdown(), ".tex": self.latex(), ".csv": self.csv()}
        for suffix, text in texts.items():
            with written_whole(folder / f"{self.name}{suffix}") as aside:
                aside.write_text(text, encoding="utf-8")
        content = {"title": self.title, **self.facts, "notes": list(self.notes), "rows": list(self.records)}
        write_json(folder / f"{self.name}.json", content)
        return [folder / f"{self.name}{suffix}" for suffix in (*texts, ".json")]
