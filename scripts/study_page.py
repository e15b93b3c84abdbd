"""Puts the tables of a published study into its page, the README.md next to them.

python scripts/study_page.py docs/study

In the page, a line `<!-- table NAME -->` is above each table that is the first one of tables/NAME.md.
"""

import re
from pathlib import Path

from llava.files import written_whole
from llava.flags import Parser, run_program

_PLACE = re.compile(r"^<!-- table (\S+) -->\n+(?:\|.*\n+)*", re.MULTILINE)
_TABLE = re.compile(r"^(?:\|.*\n)+", re.MULTILINE)


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
        found = _TABLE.search(file.read_text(encoding="utf-8") + "\n")
        if not found:
            raise ValueError(f"{file} holds no table")
        return f"<!-- table {place[1]} -->\n\n{found[0]}\n"

    text, number = _PLACE.subn(table, page)
    if not number or number != page.count("<!-- table "):
        raise ValueError(
            f"{number} of {page.count('<!-- table ')} places for tables can be used; each is a line <!-- table NAME -->"
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
