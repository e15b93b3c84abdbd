"""The tables of models without some layers: pruning curves, and layers set back to the backbone's."""

import json
import re
import shutil

import numpy as np
import pytest

from tests.fixtures.study import COLUMNS, DEPTH, made_reports
from tests.visual_region.study.figures.made import CORPORA, complete, made_reversion
from visual_region.curve_file import Order, read_curve
from visual_region.study.results import read_results
from visual_region.study.tables import write_tables

SEEDS = (0, 1, 2)
NAMES = {"pruning", "reversion"}
LOST = {"all layers": 1 / 2, "sparse-uniform": 1 / 4}
"""The skill that each removed layer of a made curve costs."""


@pytest.fixture(scope="module")
def study(made_study, tmp_path_factory):
    return complete(shutil.copytree(made_study, tmp_path_factory.mktemp("surgery") / "study"))


@pytest.fixture(scope="module")
def tables(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    files = write_tables(read_results(study), COLUMNS, folder)
    assert {f"{name}.{kind}" for name in NAMES for kind in ("md", "tex", "csv", "json")} <= {f.name for f in files}
    return folder


def rows_in(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["rows"]


def average(row, removed):
    """The average over the three visual columns by seed, in percent."""
    found = []
    for seed in SEEDS:
        reports = made_reports(row, 1.0 - removed * LOST[row], seed)
        parts = reports["easy_vqa"].parts
        columns = [[reports["easy_vqa"].per_question[key] for key in parts[part]] for part in ("shape", "colour")]
        columns.append(list(reports["gqa"].per_question.values()))
        found.append(100 * np.mean([np.mean(column) for column in columns]))
    return np.array(found)


def test_pruned_scores_are_plain_means(tables):
    rows = {(r["row"], r["removed"]): r for r in rows_in(tables, "pruning") if r["column"] == "average"}
    assert rows.keys() == {(row, removed) for row in LOST for removed in range(5)}
    for (name, removed), row in rows.items():
        ours, theirs = average(name, removed), average("all layers", removed)
        assert row["value"] == pytest.approx(ours.mean())
        assert row["sd"] == pytest.approx(ours.std(ddof=1))
        assert row["removed_by_seed"] == [f"{seed}:{','.join(map(str, range(removed)))}" for seed in SEEDS]
        if name == "sparse-uniform":
            assert row["difference"] == pytest.approx((ours - theirs).mean())
        else:
            assert row["difference"] is None


def test_pruned_scores_as_markdown(tables):
    text = (tables / "pruning.md").read_text(encoding="utf-8")
    # The rows of both models, their differences, and the removed layers by seed.
    assert text.count(f"| all layers | {DEPTH} of {DEPTH} | ") == 5 + 3
    assert text.count(f"| sparse-uniform | 3 of {DEPTH} | ") == 5 + 5 + 3
    cells = [f"{' '.join(map(str, range(n))) or 'none'} ({average('sparse-uniform', n)[1]:.1f})" for n in range(5)]
    assert f"| sparse-uniform | 3 of 12 | 1 | {' | '.join(cells)} |" in text
    assert "Difference to all layers with as many layers removed" in text
    assert "**" in text


def test_the_order_of_removal_is_said(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "study")
    for file in copy.glob("cells/*/curve.json"):
        curve = read_curve(file)
        curve.checkpoints[0].order = Order("angular", tuple(range(4)))
        curve.write(file)
    write_tables(read_results(copy), COLUMNS, tmp_path)
    text = (tmp_path / "pruning.md").read_text(encoding="utf-8")
    assert "least important layers (the lowest angular distance of hidden states first): outside" in text


def test_perplexities_are_geometric_means(tables):
    rows = rows_in(tables, "reversion")
    made = [made_reversion(seed)["rows"] for seed in SEEDS]
    variants = {tuple(entry["layers"]): name for name, entry in made[0].items()}
    corpora = {name.split("/")[-1].split(".")[0]: name for name in CORPORA}
    assert len(rows) == len(variants) * len(corpora)
    for row in rows:
        variant, corpus = variants[tuple(row["set_back"])], corpora[row["corpus"]]
        values = [table[variant]["perplexity"][corpus]["value"] for table in made]
        assert row["value"] == pytest.approx(np.exp(np.log(values).mean()))
        assert row["low"] < row["value"] < row["high"]
        assert row["answers"] == ("template" in CORPORA[corpus][0])
    text = (tables / "reversion.md").read_text(encoding="utf-8")
    assert f"| all layers | {DEPTH} of {DEPTH} | 3 | 0–2 | " in text
    assert "| docvqa (answers) |" in text
    assert "| wikitext (text) |" in text


def test_a_broken_file_costs_its_own_table_only(study, tmp_path, capsys):
    copy = shutil.copytree(study, tmp_path / "study")
    (copy / "cells/all-layers_seed1_100/reversion.json").write_text("[]")
    (copy / "cells/all-layers_seed1_100/curve.json").write_text("{")
    names = {file.stem for file in write_tables(read_results(copy), COLUMNS, tmp_path / "tables")}
    assert "selections" in names
    assert not names & NAMES
    printed = capsys.readouterr().out
    assert printed.count("a table is left out: ") == 2
    assert "reversion.json is not a file of" in printed
    assert "curve.json is not a curve" in printed


def test_a_point_that_is_not_finished_is_marked(study, tmp_path):
    """As where the command `curve` still runs: its last point lacks a benchmark, or is not there."""
    copy = shutil.copytree(study, tmp_path / "study")
    for file in copy.glob("cells/*/curve.json"):
        curve = read_curve(file)
        points = curve.checkpoints[0].points
        del points[3].reports["gqa"]
        if "seed2" in file.parent.name:
            del points[4]
        curve.write(file)
    write_tables(read_results(copy), COLUMNS, tmp_path)
    text = (tmp_path / "pruning.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(f"| all layers | {DEPTH} of {DEPTH} | 3 | 3 | "))
    assert ", 2 of 3" in line
    assert line.count("| – |") == 1
    assert "- 3 removed: " in text
    assert "| all layers | 12 of 12 | 4 | 2 | " in text


def test_curves_of_text_alone(study, tmp_path, capsys):
    copy = shutil.copytree(study, tmp_path / "study")
    for file in copy.glob("cells/*/curve.json"):
        curve = read_curve(file)
        for point in curve.checkpoints[0].points:
            point.reports = {"perplexity": point.reports["perplexity"]}
        curve.write(file)
    names = {file.stem for file in write_tables(read_results(copy), COLUMNS, tmp_path / "tables")}
    assert "pruning" not in names
    assert "no curve.json has a score of the whole model in a benchmark of images" in capsys.readouterr().out


def test_a_curve_without_one_of_all_layers(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "study")
    for file in copy.glob("cells/all-layers*/curve.json"):
        file.unlink()
    write_tables(read_results(copy), COLUMNS, tmp_path, reference="all layers")
    text = (tmp_path / "pruning.md").read_text(encoding="utf-8")
    assert "- there is no curve of a model tuned in all layers: nothing is compared" in text
    assert "- not shown, because they are of text: mmlu, perplexity" in text
    assert re.search(r"^- \d+ cells? without curve\.json: all-layers_seed0_100", text, re.MULTILINE), text
    assert "Difference to" not in text
