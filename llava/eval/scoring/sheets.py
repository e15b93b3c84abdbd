"""Spreadsheets with texts as texts, as a benchmark's server reads them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE, WriteOnlyCell

from llava.files import written_whole

# The longest text that a cell takes.
_CELL = 32767


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
