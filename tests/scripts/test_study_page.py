"""The page of a published study gets the tables and figures of its folder, and the rest of its text stays."""

import runpy
import sys

import pytest

from scripts.study_page import filled
from tests.conftest import REPOSITORY

PAGE = "# Study\n\n<!-- table one -->\n{}<!-- end -->\nText.\n\n<!-- table two -->\n{}<!-- end -->\n"
ONE = "\nOne is 1.\n\n| a |\n|---|\n| 1 |\n\n- a note\n- another\n\n"
TWO = "\nTwo.\n\n| b |\n|---|\n\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tables").mkdir()
    more = "Another table.\n\n| c |\n|---|\n"
    (tmp_path / "tables/one.md").write_text(
        f"# One\n\nOne is 1.\n\n| a |\n|---|\n| 1 |\n\n{more}\n- a note\n- another\n"
    )
    (tmp_path / "tables/two.md").write_text("# Two\n\nTwo.\n\n| b |\n|---|\n")
    return tmp_path


@pytest.mark.parametrize("old", ["", "\nOld caption.\n\n| old |\n|---|\n\n- old note\n"])
def test_places_get_the_first_table_with_caption_and_notes(folder, monkeypatch, capsys, old):
    page = folder / "README.md"
    page.write_text(PAGE.format(old, ""))
    monkeypatch.setattr(sys, "argv", ["study_page.py", str(folder)])
    for _ in range(2):
        runpy.run_path(str(REPOSITORY / "scripts/study_page.py"), run_name="__main__")
        assert page.read_text() == PAGE.format(ONE, TWO)
    assert "has the tables and figures of" in capsys.readouterr().out


def test_pages_without_a_place_or_a_table(folder):
    whole = "<!-- table one -->\n<!-- end -->\n"
    for page in ("text", "Text <!-- table one -->\n<!-- end -->\n", "<!-- table two -->\ntext\n" + whole, whole[:-5]):
        with pytest.raises(ValueError, match=r"\d of \d places for tables and figures can be used"):
            filled(page, folder)
    (folder / "tables/two.md").write_text("nothing")
    with pytest.raises(ValueError, match=r"two\.md holds no table with a caption"):
        filled(whole.replace("one", "two"), folder)
    with pytest.raises(ValueError, match=r"the page names the table three; in .* there are: one, two"):
        filled(whole.replace("one", "three"), folder)


def test_places_get_figures_with_their_captions(folder):
    captions = "# Figures\n\n## A: title\n\n![A: title](a.svg)\n\nShows a.\n\n- a note\n\n## B\n\nNot drawn: no b.\n"
    place = "Text.\n\n<!-- figure a -->\n{}<!-- end -->\n"
    with pytest.raises(ValueError, match=r"names the figure a; in .*captions\.md there are: none"):
        filled(place.format(""), folder)
    (folder / "figures").mkdir()
    (folder / "figures/captions.md").write_text(captions)
    content = "\n![A: title](figures/a.png)\n\n*A: title.* Shows a.\n\n"
    for old in ("", "\nold\n\n", content):
        assert filled(place.format(old), folder) == place.format(content)
    with pytest.raises(ValueError, match=r"names the figure b; in .*captions\.md there are: a"):
        filled(place.replace("figure a", "figure b").format(""), folder)
