"""Puts the tables and figures of a published study into its page, the README.md next to them.

python scripts/study_page.py docs/study

In the page, a line `<!-- table NAME -->` and a line `<!-- end -->` are the place of the first table of tables/NAME.md,
with its caption and the notes of the file. A line `<!-- figure NAME -->` and a line `<!-- end -->` are the place of
figures/NAME.png with its caption from figures/captions.md, which has its notes too.
"""

import re
from pathlib import Path

from llava.files import written_whole
from llava.flags import Parser, run_program

_PLACE = re.compile(r"^<!-- (table|figure) (\S+) -->\n(?:(?!<!-- ).*\n)*<!-- end -->$", re.MULTILINE)
_OPENING = re.compile(r"<!-- (?:table|figure) ")
_TABLE = re.compile(r"^(?!#).+\n\n(?:\|.*\n)+", re.MULTILINE)
_NOTES = re.compile(r"^(?:- .*\n)+\Z", re.MULTILINE)
_FIGURE = re.compile(r"^!\[(.*)\]\((\S+)\.svg\)\n\n(.+)\n", re.MULTILINE)


def filled(page: str, folder: Path) -> str:
    """The text of a page with the tables and figures of a published study at their places.

    Args:
        folder: holds tables/ and figures/.

    Raises:
        ValueError: the page has no place, a place that is not a line of its own, or names what is not there.
    """

    def content(place: re.Match[str]) -> str:
        kind, name = place.groups()
        lines = _table(folder / "tables", name) if kind == "table" else _figure(folder / "figures", name)
        return "\n".join([f"<!-- {kind} {name} -->", "", *lines, "<!-- end -->"])

    text, number = _PLACE.subn(content, page)
    places = len(_OPENING.findall(page))
    if not number or number != places:
        raise ValueError(
            f"{number} of {places} places for tables and figures can be used; each begins with a line "
            "<!-- table NAME --> or <!-- figure NAME --> and ends with a line <!-- end -->"
        )
    return text


def _table(tables: Path, name: str) -> list[str]:
    file = tables / f"{name}.md"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in tables.glob("*.md"))) or "none"
        raise ValueError(f"the page names the table {name}; in {tables} there are: {known}")
    text = file.read_text(encoding="utf-8")
    found, notes = _TABLE.search(text), _NOTES.search(text)
    if not found:
        raise ValueError(f"{file} holds no table with a caption")
    return [found[0], *([notes[0]] if notes else [])]


def _figure(figures: Path, name: str) -> list[str]:
    file = figures / "captions.md"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    captions = {own: (title, caption) for title, own, caption in _FIGURE.findall(text)}
    if name not in captions:
        known = ", ".join(captions) or "none"
        raise ValueError(f"the page names the figure {name}; in {file} there are: {known}")
    title, caption = captions[name]
    return [f"![{title}]({figures.name}/{name}.png)", "", f"*{title}.* {caption}", ""]


def main() -> None:
    parser = Parser(description="Put the tables and figures of a published study into its page")
    parser.add_argument("folder", type=Path, help="holds README.md, tables/ and figures/")
    folder = parser.parse_args().folder
    page = folder / "README.md"
    text = filled(page.read_text(encoding="utf-8"), folder)
    with written_whole(page) as aside:
        aside.write_text(text, encoding="utf-8")
    print(f"{page} has the tables and figures of {folder}")


if __name__ == "__main__":
    run_program(main, interrupted="")
