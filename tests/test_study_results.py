"""docs/study: its tables are those of its cells, and its text has them unchanged."""

import csv
import io
import json
import re
import shutil

import pytest
import yaml

from scripts.study_page import filled
from tests.conftest import REPOSITORY

STUDY = REPOSITORY / "docs/study"
PLAN = REPOSITORY / "plans/embedded.yaml"
IN_TEXT = ("selections", "depths", "shares", "pruning", "reversion", "text", "cost")
"""The tables that the text has."""


@pytest.fixture(scope="module")
def runs():
    """The run.json of every training."""
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in STUDY.glob("cells/*/run.json")}


def values_in(file):
    """All values of a CSV or JSON file in their order; numbers as float."""
    text = file.read_text(encoding="utf-8")
    words = [word for line in csv.reader(io.StringIO(text)) for word in line] if file.suffix == ".csv" else text.split()
    found = []
    for word in words:
        try:
            found.append(float(word.rstrip(",")))
        except ValueError:
            found.append(word)
    return found


def test_the_tables_are_those_of_the_cells(tmp_path, command, monkeypatch, capsys):
    """As a stranger would make them again; pictures are drawn elsewhere."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("visual_region.study.figures.draw_figures", lambda *args: [])
    copy = shutil.copytree(STUDY, tmp_path / "study")
    for file in (copy / "tables").iterdir():
        file.unlink()
    command("study", "plans/embedded.yaml", "--draw", "--out", copy)
    made, published = ({file.name: file for file in (one / "tables").iterdir()} for one in (copy, STUDY))
    assert made.keys() == published.keys()
    for name, file in published.items():
        if file.suffix in (".md", ".tex"):
            assert made[name].read_text(encoding="utf-8") == file.read_text(encoding="utf-8")
        else:
            # Sums of floating-point numbers may differ in their last digits.
            ours, theirs = map(values_in, (made[name], file))
            assert len(ours) == len(theirs) > 0
            assert ours == [pytest.approx(v, rel=1e-6, abs=1e-9) if isinstance(v, float) else v for v in theirs], name
    sentence = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Tuning "))
    for page in (STUDY / "README.md", REPOSITORY / "README.md"):
        # Lines may be broken anywhere.
        assert sentence in " ".join(page.read_text(encoding="utf-8").split()), page


def test_the_text_has_the_tables_and_figures():
    text = (STUDY / "README.md").read_text(encoding="utf-8")
    assert filled(text, STUDY) == text, "run python scripts/study_page.py docs/study"
    assert all(f"<!-- table {name} -->" in text for name in IN_TEXT)
    figures = {file.stem for file in (STUDY / "figures").glob("*.png")}
    assert figures
    assert all(f"<!-- figure {name} -->" in text for name in figures)


def test_the_plan_is_the_one_that_ran():
    ran, now = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in (STUDY / "plan.yaml", PLAN))
    assert ran == now


def test_every_cell_has_the_same_budget(runs):
    # "+": a flag of the plan's step `reversion` was changed while the study ran.
    assert len({run["commit"].rstrip("+") for run in runs.values()}) == 1
    assert len({json.dumps(run["versions"]) for run in runs.values()}) == 1
    samples = {name: run["samples"] / float(run["data_share"].rstrip("%")) for name, run in runs.items()}
    assert len(set(samples.values())) == 1
    assert {run["batch_size"] for run in runs.values()} == {4}
    assert all(run["finished"] for run in runs.values())


def test_it_is_small_and_names_no_folder_of_a_machine():
    files = [file for file in STUDY.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 20e6
    for file in files:
        if file.suffix in (".json", ".yaml", ".md", ".csv", ".tex"):
            assert not re.search(r'"/\w+/', file.read_text(encoding="utf-8")), file
