"""`study`: what it prints; scripts and models are made ones. Running cells: tests/visual_region/study."""

import json
import re
import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY
from tests.fixtures.plans import MEASURED


def test_the_dry_run_prints_what_runs(small_study, command, capsys, monkeypatch):
    monkeypatch.setattr("visual_region.commands.study.draw", lambda plan, cells: None)
    command("study", "plan.yaml", "--dry-run")
    printed = capsys.readouterr().out
    assert small_study.log() == []
    assert not small_study.out.exists()
    assert printed.startswith(
        f"# stages: first\nSIZE=7b MODEL=llm PYTHON={small_study.root}/python bash scripts/stage.sh"
    )
    assert "\n\n# bi-seed1: evaluate\n" in printed
    subprocess.run(["bash", "-e", "-c", printed], check=True)
    typed = small_study.log()
    subprocess.run(["rm", "-r", small_study.out], check=True)
    command("study", "plan.yaml")
    assert typed == small_study.log()
    capsys.readouterr()
    command("study", "plan.yaml", "--dry-run")
    assert capsys.readouterr().out == "# nothing is left\n"


def test_the_dry_run_of_a_part(small_study, command, capsys):
    command("study", "plan.yaml", "--dry-run", "--cell", "bi-seed1")
    printed = capsys.readouterr().out
    assert re.findall("# (.*)", printed) == ["stages: first", "bi-seed1: train", "bi-seed1: evaluate"]
    command("study", "plan.yaml", "--dry-run", "--only", "reversion")
    printed = capsys.readouterr().out
    steps = ["stages: first", "all-seed0: train", "all-seed0: score", "all-seed0: reversion"]
    assert re.findall("# (.*)", printed) == steps
    command("study", "plan.yaml", "--dry-run", "--only", "reversion", "text")
    printed = capsys.readouterr().out
    steps = [*steps[:3], "all-seed0: text", steps[3], "backbone: text"]
    assert re.findall("# (.*)", printed) == steps


def test_the_list(small_study, command, capsys, monkeypatch):
    monkeypatch.setattr("visual_region.commands.study.draw", lambda plan, cells: None)
    command("study", "plan.yaml", "--list")
    said = capsys.readouterr().out
    assert re.search(r"\n *1 +all-seed0 +left +train, score, evaluate, text, reversion, attention\n", said)
    assert "small: 8 cells in out: 0 done, 0 running, 0 failed, 8 left" in said
    assert "device hours used: 0.00; left: no estimate before the first cell is finished" in said
    command("study", "plan.yaml", "--only", "text")
    capsys.readouterr()
    command("study", "plan.yaml", "--list")
    said = capsys.readouterr().out
    # Two devices, half an hour a training; the share of 25% takes a quarter of it.
    assert "device hours used: 0.50; left: about 2.6 device hours, 79 min" in said
    assert "with 2 devices (from 1 finished cell; without attention, curve, evaluate, reversion)" in said
    # As where the cells were copied from another machine without the shared stages.
    shutil.rmtree(small_study.out / "stages")
    command("study", "plan.yaml", "--only", "text", "--list")
    said = capsys.readouterr().out
    assert said.endswith("2 done, 0 running, 0 failed, 0 left\ndevice hours used: 0.50; left: the shared stages\n")


def test_the_cost_model_prices_what_was_not_measured(small_study, tiny, command, capsys):
    cost = f"--model-path {tiny.llm} --vision-tower {tiny.tower} --tflops 0.000001 --lora-r 8 --samples 1000"
    prices = ["--set", f"cost.flags={cost}", "--set", "cost.device=my device", "--set", "cost.questions=10"]
    command("study", "plan.yaml", "--list", *prices)
    said = capsys.readouterr().out
    hours = float(re.search(r"left: about ([\d.,]+) device hours", said)[1].replace(",", ""))
    assert "(cost model, my device; without attention, curve, reversion, score, text, the shared stages)" in said
    flags = ["--tflops", "0.000001", "--lora-r", 8, "--samples", 1000, "--vision-tower", tiny.tower]
    flags += ["--output", small_study.root / "p.json"]
    command("plan", "--model-path", tiny.llm, *flags, "--tune-layers", "all", "--tune-layers", "top:2")
    rows = json.loads((small_study.root / "p.json").read_text())["selections"]
    whole, two = (row["plain"]["device_hours"] for row in rows)
    of_sample = rows[0]["plain"]["flops_per_sample"]
    answers = 10 * (of_sample["forward"] + of_sample["tower"]) / (1e6 * 0.4 * 3600)
    of_two = rows[1]["plain"]["flops_per_sample"]
    answers_of_two = 10 * (of_two["forward"] + of_two["tower"]) / (1e6 * 0.4 * 3600)
    # 2 x all, 4 x two layers, and two layers with a quarter of the data.
    assert hours == pytest.approx(2 * (whole + answers) + 4.25 * two + 5 * answers_of_two, rel=0.01)


def test_a_model_that_is_not_there_yet_has_no_price(small_study, command, capsys):
    prices = ["--set", "cost.flags=--tflops 1 --vision-tower nowhere", "--set", "cost.device=my device"]
    command("study", "plan.yaml", "--list", *prices)
    assert "left: the cost model cannot be used: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["plan.yml"], "plan plan.yml does not exist"),
        (["."], "plan . is a folder, not a file"),
        (["plan.yaml", "--out", "plan.yaml"], "--out plan.yaml is a file; give a folder"),
        (["plan.yaml", "--out", "plan.yaml", "--draw"], "--out plan.yaml is a file; give a folder"),
        (["plan.yaml", "--set", "seed=[1]"], "seed: there is no key 'seed'; did you mean 'seeds'?"),
        (["plan.yaml", "--set", "rows.top=top:99%%"], "rows.top: layer selection 'top:99%%'"),
        (["plan.yaml", "--cell", "99"], "--cell 99: there is no such cell; --list prints the 8 cells of the plan"),
    ],
)
def test_careless_words(small_study, command, words, why):
    with pytest.raises(SystemExit) as stop:
        command("study", *words)
    assert why in str(stop.value)
    assert small_study.log() == []
    assert not small_study.out.exists()


def test_data_that_is_missing_is_named_before_a_cell_is_trained(small_study, command, capsys):
    shutil.rmtree(small_study.root / "playground/data/eval/gqa")
    small_study.change("docvqa: --samples 8", "docvqa: --data-path no.json")
    with pytest.raises(
        SystemExit, match=r"the plan reads what does not exist(.|\n)*- playground/data/eval/gqa/(.|\n)*- no.json"
    ):
        command("study", "plan.yaml")
    assert [line.split()[0] for line in small_study.log()] == ["stage"], "a stage may make the data"
    note = "these do not exist; a shared stage must make them, or the study ends after the stages:\n- playground"
    assert note in capsys.readouterr().out


def test_tables_and_figures_of_what_is_finished(small_study, command, capsys, monkeypatch):
    small_study.change(MEASURED, "")
    small_study.change("top: top:2", "top: sparse-uniform:25%")
    monkeypatch.setenv("FAIL", "train out/cells/bi-seed1")
    with pytest.raises(SystemExit, match="1 cell of 8 failed"):
        command("study", "plan.yaml")
    said = capsys.readouterr().out
    assert re.search(r"\d+ files in out/tables and out/figures; 1 cell of 8 not finished", said)
    assert "Tuning 2 layers of 6, spread over the depth, keeps 100.0% (no interval; 1 task, 4 questions" in said
    tables = small_study.out / "tables"
    assert "| top |" in (tables / "selections.md").read_text()
    assert "| backbone |" in (tables / "text.md").read_text()
    assert (small_study.out / "figures/selections.png").stat().st_size > 10_000
    # A cell that is not of the plan any more is in no table.
    small_study.change("rows: [all, top, bi]", "rows: [all, bi]")
    small_study.change("shares: {rows: [top], seeds: [0], shares: [100, 25]}", "depths: {rows: [all]}")
    # A row has another name, a cell has a copy, and there is something new to measure.
    small_study.change("  bi: ", "  BI: ")
    small_study.change("rows: [all, bi]", "rows: [all, BI]")
    shutil.copytree(small_study.out / "cells/all-seed0", small_study.out / "cells/all-seed0-copy")
    small_study.change("columns: [gqa]", "columns: [gqa, textvqa]")
    command("study", "plan.yaml", "--draw")
    drawn = (tables / "selections.md").read_text()
    assert "| top |" not in drawn
    assert "| BI |" in drawn
    assert "- not finished: 4 cells" in drawn
    command("study", "plan.yaml", "--list")
    said = capsys.readouterr().out
    assert "4 cells in out not of this plan, left as they are: all-seed0-copy, top-seed0, top-seed0-share25" in said


def test_a_published_copy_is_small_and_gives_the_same_tables(small_study, command, capsys, monkeypatch):
    small_study.change(MEASURED, "")
    monkeypatch.setenv("FAIL", "train out/cells/bi-seed1")
    with pytest.raises(SystemExit, match="1 cell of 8 failed"):
        command("study", "plan.yaml")
    run = small_study.out / "cells/all-seed0/run.json"
    run.write_text(json.dumps(json.loads(run.read_text()) | {"base": str(small_study.root / "llm")}))
    command("study", "plan.yaml", "--draw")
    capsys.readouterr()
    command("study", "plan.yaml", "--publish", "docs/copy")
    said = capsys.readouterr().out
    assert re.search(r"\d+ result files of 8 cells copied to docs/copy\n", said)
    assert re.search(r"\d+ files in docs/copy/tables and docs/copy/figures; 1 cell of 8 not finished", said)
    copy = small_study.root / "docs/copy"
    assert {path.name for path in copy.iterdir()} == {"plan.yaml", "cells", "tables", "figures"}
    names = {path.name for path in copy.glob("cells/all-seed0/**/*")}
    files = {"cell.json", "done.json", "settings.json", "run.json", "scores.json", "gqa.json", "bbh.json"}
    assert names == files | {"results"}
    assert str(small_study.root) not in "".join(path.read_text() for path in copy.rglob("*.json"))
    assert json.loads((copy / "cells/all-seed0/run.json").read_text())["base"] == "llm"
    drawn = {path.name: path.read_bytes() for path in (copy / "tables").iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in (small_study.out / "tables").iterdir()}
    shutil.rmtree(copy / "tables")
    command("study", "plan.yaml", "--draw", "--out", "docs/copy")
    assert drawn == {path.name: path.read_bytes() for path in (copy / "tables").iterdir()}


def test_a_published_study_continues_on_another_machine(small_study, command, capsys, monkeypatch):
    monkeypatch.setattr("visual_region.commands.study.draw", lambda plan, cells: None)
    monkeypatch.setenv("FAIL", "train out/cells/bi-seed1")
    with pytest.raises(SystemExit, match="1 cell of 8 failed"):
        command("study", "plan.yaml")
    # What steps leave that were interrupted: a part of the points, and some of the benchmarks.
    cells = small_study.out / "cells"
    done = json.loads((cells / "top-seed0/done.json").read_text())
    del done["stages"]["curve"]
    (cells / "top-seed0/done.json").write_text(json.dumps(done | {"finished": False}))
    shutil.copytree(cells / "all-seed1/results", cells / "bi-seed1/results")
    command("study", "plan.yaml", "--publish", "copy")
    copy = small_study.root / "copy/cells"
    found = {path.name for path in copy.glob("top-seed0/**/*")}
    assert found == {"cell.json", "done.json", "settings.json", "run.json", "scores.json", "results", "gqa.json"}
    assert set(json.loads((copy / "top-seed0/settings.json").read_text())) == {"train", "score", "evaluate"}
    assert {path.name for path in (copy / "bi-seed1").iterdir()} == {"cell.json", "settings.json"}
    # A cell that is trained again has no measurements of its first training.
    again = json.loads((cells / "all-seed1/done.json").read_text())
    again["stages"] = {"train": again["stages"]["train"]}
    earlier = (cells / "all-seed1/done.json").read_text()
    (cells / "all-seed1/done.json").write_text(json.dumps(again | {"finished": False}))
    command("study", "plan.yaml", "--publish", "copy")
    assert not list(copy.glob("all-seed1/results/*"))
    (cells / "all-seed1/done.json").write_text(earlier)
    command("study", "plan.yaml", "--publish", "copy")
    shutil.rmtree(small_study.out)
    shutil.copytree(copy, small_study.out / "cells")
    capsys.readouterr()
    command("study", "plan.yaml", "--list")
    assert "6 done, 0 running, 0 failed, 2 left" in capsys.readouterr().out
    monkeypatch.delenv("FAIL")
    small_study.log()
    command("study", "plan.yaml")
    calls = [line for line in small_study.log() if not line.startswith("stage")]
    assert [line.split()[0] for line in calls if "cells/top-seed0/" in line] == ["train", "python", "python"]
    assert [line.split()[0] for line in calls if "cells/bi-seed1/" in line] == ["train", "all"]
    assert len(calls) == 5
    assert (small_study.out / "cells/top-seed0/curve.json").is_file()
    small_study.change("--batch-size 4", "--batch-size 8")
    with pytest.raises(SystemExit, match="the plan has other settings than what it began in out"):
        command("study", "plan.yaml", "--list")


def test_a_study_continues_with_the_published_plan(small_study, command, capsys, monkeypatch):
    """Its paths are those of the published settings, also if the plan had absolute ones."""
    monkeypatch.setattr("visual_region.commands.study.draw", lambda plan, cells: None)
    small_study.change("model: llm", f"model: {small_study.root}/llm")
    small_study.change("docvqa: --samples 8", f"docvqa: --samples 8 --image-folder {small_study.root}/llm")
    command("study", "plan.yaml", "--only", "attention", "text")
    command("study", "plan.yaml", "--publish", "copy")
    assert str(small_study.root) not in (small_study.root / "copy/plan.yaml").read_text()
    shutil.rmtree(small_study.out)
    shutil.copytree(small_study.root / "copy/cells", small_study.out / "cells")
    capsys.readouterr()
    command("study", "copy/plan.yaml", "--only", "attention", "text", "--list")
    assert "2 done, 0 running, 0 failed, 0 left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("out", "--publish out and out overlap"),
        ("out/copy", "--publish out/copy and out overlap"),
        ("plan.yaml", "--publish plan.yaml is a file; give a folder"),
        ("docs", "--publish: nothing is finished in out"),
    ],
)
def test_what_cannot_be_published(small_study, command, folder, why):
    with pytest.raises(SystemExit) as stop:
        command("study", "plan.yaml", "--publish", folder)
    assert why in str(stop.value)
    assert not small_study.out.exists()
    assert not (small_study.root / "docs").exists()


def test_nothing_is_drawn_of_nothing(small_study, command, capsys):
    command("study", "plan.yaml", "--draw")
    assert "nothing is finished in out" in capsys.readouterr().out


PRICED = {
    "paper-llava-7b": (8, "A800"),
    "paper-llava-13b": (3, "A800"),
    "paper-bunny-llama3-8b": (32, "A800"),
    "paper-bunny-phi3": (8, "A800"),
}


@pytest.mark.parametrize("name", PRICED)
def test_the_papers_plans_are_priced_without_a_model(name, command, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    number, device = PRICED[name]
    command("study", f"plans/{name}.yaml", "--list", "--out", tmp_path)
    said = capsys.readouterr().out
    assert f"{name}: {number} cells in {tmp_path}: 0 done, 0 running, 0 failed, {number} left" in said
    assert re.search(
        rf"left: about [\d,.]+ device hours \([\d,.]+ if all layers are recomputed\) \(cost model, {device}", said
    )
