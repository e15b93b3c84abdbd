"""Spreadsheets with texts as texts, as a benchmark's server reads them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from openpyxl import Workbook, load_workbook
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE, WriteOnlyCell
from openpyxl.utils.exceptions import InvalidFileException

from llava.files import written_whole
from llava.outputs import FileKind

# The longest text that a cell takes.
_CELL = 32767


@dataclass(frozen=True)
class _Sheet(FileKind):
    def recognises(self, path: Path) -> bool:
        try:
            first = next(load_workbook(path, read_only=True).active.iter_rows(values_only=True), ())
        except (InvalidFileException, BadZipFile, KeyError):
            return not path.stat().st_size
        return {"index", "prediction"} <= set(first)


SHEET = _Sheet("a sheet of predictions", ".xlsx")


def write_sheet(path: str | Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """An .xlsx file; a reply that begins with "=" is no formula, and control characters are left out."""
    book = Workbook(write_only=True)
    page = book.create_sheet("Sheet1")
    page.append(list(columns))
    for row in rows:
        page.append([int(row[0]), *(_text_cell(page, text) for text in row[1:])])
    with written_whole(path) as aside:
        book.save(aside)


def _text_cell(page: Any, text: str) -> WriteOnlyCell:
    # Lone surrogates cannot be written in UTF-8.
    plain = re.sub(r"[\ud800-\udfff]", "\ufffd", ILLEGAL_CHARACTERS_RE.sub("", text))[:_CELL]
    cell = WriteOnlyCell(page, value=plain or None)
    if plain:
        cell.data_type = "s"
    return cell
