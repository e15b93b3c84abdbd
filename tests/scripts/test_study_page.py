"""The page of a published study gets the tables of its folder, and the rest of its text stays."""

import runpy
import sys

import pytest

from scripts.study_page import filled
from tests.conftest import REPOSITORY

PAGE = "# Study\n\n<!-- table one -->\n{}Text with a | in it.\n\n<!-- table two -->\n{}End.\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/one.md").write_text("# One\n\n| a |\n|---|\n| 1 |\n\n| another table |\n|---|\n")
    (tmp_path / "tables/two.md").write_text("| b |\n|---|")
    return tmp_path


def test_places_get_the_first_table(folder, monkeypatch, capsys):
    page = folder / "README.md"
    page.write_text(PAGE.format("\n", "\n| old |\n|---|\n| 0 |\n\n"))
    monkeypatch.setattr(sys, "argv", ["study_page.py", str(folder)])
    for _ in range(2):
        runpy.run_path(str(REPOSITORY / "scripts/study_page.py"), run_name="__main__")
        assert page.read_text() == PAGE.format("\n| a |\n|---|\n| 1 |\n\n", "\n| b |\n|---|\n\n")
    assert "has the tables of" in capsys.readouterr().out


def test_pages_without_a_place_or_a_table(folder):
    for page in ("text", "Text <!-- table one -->\n\n", "<!-- table one -->\n\n* <!-- table two -->\n"):
        with pytest.raises(ValueError, match=r"\d of \d places for tables can be used"):
            filled(page, folder / "tables")
    (folder / "tables/two.md").write_text("nothing")
    with pytest.raises(ValueError, match=r"two\.md holds no table"):
        filled("<!-- table two -->\n\n", folder / "tables")
    with pytest.raises(ValueError, match=r"the page names the table three; in .* there are: one, two"):
        filled("<!-- table three -->\n\n", folder / "tables")
