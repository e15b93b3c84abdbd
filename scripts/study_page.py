"""Puts the tables of a published study into its page, the README.md next to them.

python scripts/study_page.py docs/study

In the page, a line `<!-- table NAME -->` and a line `<!-- end -->` are the place of the first table of tables/NAME.md,
with its caption and the notes of the file.
"""

import re
from pathlib import Path

from llava.files import written_whole
from llava.flags import Parser, run_program

_PLACE = re.compile(r"^<!-- table (\S+) -->\n(?:(?!<!-- ).*\n)*<!-- end -->$", re.MULTILINE)
_TABLE = re.compile(r"^(?!#).+\n\n(?:\|.*\n)+", re.MULTILINE)
_NOTES = re.compile(r"^(?:- .*\n)+\Z", re.MULTILINE)


def filled(page: str, tables: Path) -> str:
    """The text of a page with the tables in `tables` at their places.

    Raises:
        ValueError: the page has no place, a place that is not a line of its own, or names a table that is not there.
    """

    def table(place: re.Match[str]) -> str:
        file = tables / f"{place[1]}.md"
        if not file.is_file():
            known = ", ".join(sorted(path.stem for path in tables.glob("*.md"))) or "none"
            raise ValueError(f"the page names the table {place[1]}; in {tables} there are: {known}")
        text = file.read_text(encoding="utf-8")
        found, notes = _TABLE.search(text), _NOTES.search(text)
        if not found:
            raise ValueError(f"{file} holds no table with a caption")
        return "\n".join([f"<!-- table {place[1]} -->", "", found[0], *([notes[0]] if notes else []), "<!-- end -->"])

    text, number = _PLACE.subn(table, page)
    if not number or number != page.count("<!-- table "):
        raise ValueError(
            f"{number} of {page.count('<!-- table ')} places for tables can be used; each begins with a line "
            "<!-- table NAME --> and ends with a line <!-- end -->"
        )
    return text


def main() -> None:
    parser = Parser(description="Put the tables of a published study into its page")
    parser.add_argument("folder", type=Path, help="holds README.md and tables/")
    folder = parser.parse_args().folder
    page = folder / "README.md"
    text = filled(page.read_text(encoding="utf-8"), folder / "tables")
    with written_whole(page) as aside:
        aside.write_text(text, encoding="utf-8")
    print(f"{page} has the tables of {folder / 'tables'}")


if __name__ == "__main__":
    run_program(main, interrupted="")
