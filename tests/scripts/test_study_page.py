"""The page of a published study gets the tables of its folder, and the rest of its text stays."""

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
    assert "has the tables of" in capsys.readouterr().out


def test_pages_without_a_place_or_a_table(folder):
    whole = "<!-- table one -->\n<!-- end -->\n"
    for page in ("text", "Text <!-- table one -->\n<!-- end -->\n", "<!-- table two -->\ntext\n" + whole, whole[:-5]):
        with pytest.raises(ValueError, match=r"\d of \d places for tables can be used"):
            filled(page, folder / "tables")
    (folder / "tables/two.md").write_text("nothing")
    with pytest.raises(ValueError, match=r"two\.md holds no table with a caption"):
        filled(whole.replace("one", "two"), folder / "tables")
    with pytest.raises(ValueError, match=r"the page names the table three; in .* there are: one, two"):
        filled(whole.replace("one", "three"), folder / "tables")
