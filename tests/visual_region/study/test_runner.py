"""Cells are run once, in order, by any number of processes, and go on after kills; scripts and models are made ones."""

import json
import os
import shutil
import signal
import time

import pytest

from llava.files import locked
from tests.conftest import REPOSITORY
from tests.fixtures.plans import MEASURED, small_files
from visual_region.study.cell import Cell
from visual_region.study.results import finished, read_results


def kinds(calls):
    """The first word of each call, and of a training the cell."""
    return [f"train {line.split('/')[2]}" if line.startswith("train") else line.split()[0] for line in calls]


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch):
    """Drawing takes longer than everything else here; tests/visual_region/commands/test_study.py draws once."""
    monkeypatch.setattr("visual_region.commands.study.draw", lambda plan, cells: None)


@pytest.fixture
def study(small_study, start):
    """Starts the study as a program of its own; returns the process and its printed text, or waits for its end."""

    def begin(*words, wait=True, **environment):
        said = small_study.root / f"said-{time.monotonic_ns()}"
        with open(said, "wb") as file, open(os.devnull) as null:
            process = start(
                *("-m", "visual_region", "study", "plan.yaml", *words),
                environment={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
                folder=small_study.root,
                files=(null.fileno(), file.fileno(), file.fileno()),
            )
        if not wait:
            return process, said
        process.wait()
        return process.returncode, said.read_text()

    return begin


def test_every_cell_once_in_order(small_study, command, capsys):
    command("study", "plan.yaml")
    calls = small_study.log()
    assert calls[0] == "stage MODEL=llm SIZE=7b --a b"
    assert kinds(calls[1:]) == [
        *("train all-seed0", "python", "all", "all", "python", "python"),
        *("train all-seed1", "python", "all"),
        *("train top-seed0", "python", "all", "python"),
        *("train bi-seed0", "all", "all", "train top-seed0-share25", "all"),
        *("train top-seed1", "all", "train bi-seed1", "all"),
    ]
    trained = [line for line in calls if line.startswith("train")]
    assert trained[0] == "train out/cells/all-seed0/train TUNE_LAYERS=all MODEL=llm STEPS=2 --seed 0 --lora_dropout 0"
    assert "--seed 0 --data_share 25% --data_seed 0" in trained[4]
    assert "TUNE_LAYERS=out/cells/all-seed1/scores.json#bi:2" in trained[6]
    text = next(line for line in calls if "out-backbone" in line)
    assert text.startswith("all NAME=out-backbone llm --only bbh --results out/cells/backbone/results --require-all")
    said = capsys.readouterr().out
    assert "[8/8] bi-seed1: train took" in said
    assert "8 cells of 8 done" in said
    results = {result.cell.name: result for result in read_results(small_study.out)}
    assert len(results) == 8
    assert all(result.finished for result in results.values())
    cell = results["top-seed0"].cell
    assert (cell.layers, cell.depth, cell.experiments) == ((0, 2), 6, ("selections", "shares", "curve"))
    assert results["all-seed0"].run["device_hours"] == 0.5
    assert set(results["all-seed0"].reports) == {"gqa", "bbh"}

    command("study", "plan.yaml")
    assert small_study.log() == []
    assert "0 of 8 cells to run" in capsys.readouterr().out


def test_a_dry_run_of_scripts_finishes_no_step(small_study, command, monkeypatch):
    monkeypatch.setenv("DRY_RUN", "1")
    command("study", "plan.yaml", "--cell", "all-seed0")
    assert kinds(small_study.log())[:2] == ["stage", "train all-seed0"]


@pytest.mark.parametrize("kill", ["KILL_AT", "KILL_AFTER"])
def test_killed_at_each_call_it_goes_on(small_study, study, command, kill):
    """Every step of a cell, and a cell that needs its scores; before a step writes anything, and after all of it."""
    small_study.change("selections: {rows: [all, top, bi]}", "selections: {rows: [all, bi]}")
    small_study.change("shares: {rows: [top]", "shares: {rows: [bi]")
    small_study.change("[100, 25]", "[100]")
    small_study.change("curve: {rows: [top]", "curve: {rows: [all]")
    small_study.change("text: {rows: [all, backbone]", "text: {rows: [all]")
    small_study.change("seeds: [0, 1]", "seeds: [0]")
    command("study", "plan.yaml")
    whole, calls = small_files(small_study.out), small_study.log()
    steps = ["train all-seed0", "python", "all", "all", "python", "python", "python", "train bi-seed0", "all"]
    assert kinds(calls) == ["stage", *steps]
    for call in range(1, len(calls) + 1):
        shutil.rmtree(small_study.out)
        code, _ = study(**{kill: str(call)})
        assert code == -signal.SIGKILL
        before = small_study.log()
        if kinds(before)[-1] == "train all-seed0":
            trained = small_study.out / "cells/all-seed0/train/run.json"
            assert trained.is_file() == (kill == "KILL_AFTER")
        command("study", "plan.yaml")
        after = small_study.log()
        assert before + after[1:] == calls, "the killed step starts again, and nothing else"
        assert small_files(small_study.out) == whole


def test_a_failed_cell_is_reported_and_the_rest_goes_on(small_study, command, capsys, monkeypatch):
    monkeypatch.setenv("FAIL", "train out/cells/all-seed1/train")
    with pytest.raises(SystemExit) as stop:
        command("study", "plan.yaml")
    assert str(stop.value).startswith(
        "error: 2 cells of 8 failed:\n- all-seed1: train ended with 3; its log is out/cells"
    )
    assert "- bi-seed1: not run, because it needs the scores of all-seed1" in str(stop.value)
    said = capsys.readouterr().out
    assert "FAILED all-seed1: train ended with 3; its log is out/cells/all-seed1/train.log:\n" in said
    assert "    it broke" in said
    assert sum(result.finished for result in read_results(small_study.out)) == 6
    command("study", "plan.yaml", "--list")
    assert "failed: train" in capsys.readouterr().out
    small_study.log()
    monkeypatch.delenv("FAIL")
    command("study", "plan.yaml")
    assert kinds(small_study.log()) == ["train all-seed1", "python", "all", "train bi-seed1", "all"]
    command("study", "plan.yaml", "--list")
    assert "8 done, 0 running, 0 failed, 0 left" in capsys.readouterr().out


def test_scores_that_are_there_are_used_after_a_failure(small_study, command, monkeypatch):
    monkeypatch.setenv("FAIL", "all NAME=out-all-seed0")
    with pytest.raises(SystemExit, match="1 cell of 3 failed:\n- all-seed0: evaluate ended with 3"):
        command("study", "plan.yaml", "--only", "selections", "--set", "experiments.selections.seeds=[0]")
    assert finished(small_study.out / "cells/bi-seed0")


def test_a_failed_stage_stops_the_study(small_study, command, monkeypatch):
    monkeypatch.setenv("FAIL", "stage")
    with pytest.raises(
        SystemExit, match=r"first ended with 3; its log is out/stages/first.log:(.|\n)*no cell can be run"
    ):
        command("study", "plan.yaml")
    assert kinds(small_study.log()) == ["stage"]


def test_a_grown_plan_adds_and_deletes_nothing(small_study, command, capsys):
    command("study", "plan.yaml", "--set", "seeds=[0]")
    small_study.log()
    before = small_files(small_study.out)
    done = small_study.out / "cells/top-seed0/done.json"
    content = json.loads(done.read_text())
    done.write_text(json.dumps(content | {"stages": content["stages"] | {"evaluate": 100.0, "curve": 200.0}}))
    (small_study.out / "cells/top-seed0/curve.json").unlink()
    small_study.change("columns: [gqa]", "columns: [gqa, textvqa]")
    small_study.change("  backbone: null", "  lower: lower:2\n  backbone: null")
    small_study.change("rows: [all, top, bi]", "rows: [all, lower, bi]")
    command("study", "plan.yaml", "--set", "seeds=[0]")
    calls = small_study.log()
    assert kinds(calls) == ["all", "all", "python", "all", "train lower-seed0", "all", "all"]
    seconds = json.loads(done.read_text())["stages"]
    assert seconds["evaluate"] > 100, "what both columns took"
    assert seconds["curve"] < 100, "it was measured again as a whole"
    assert "again" not in capsys.readouterr().out
    assert [line.split("--only ")[1].split(" --")[0] for line in calls if "--only" in line].count("textvqa") == 4
    after = small_files(small_study.out)
    # These name what is new.
    new = {name for name in after if name.endswith(("cell.json", "settings.json", "plan.yaml"))}
    assert {name: after[name] for name in before if name not in new} == {
        name: text for name, text in before.items() if name not in new
    }
    # A row that left the plan stays in the folder.
    small_study.change("shares: {rows: [top], seeds: [0], shares: [100, 25]}", "depths: {rows: [all]}")
    small_study.change("curve: {rows: [top]", "curve: {rows: [all]")
    capsys.readouterr()
    command("study", "plan.yaml", "--set", "seeds=[0]", "--list")
    said = capsys.readouterr().out
    assert "2 cells in out not of this plan, left as they are: top-seed0, top-seed0-share25" in said
    assert (small_study.out / "cells/top-seed0/train").is_dir()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("STEPS: 2", "STEPS: 3", "out/cells/all-seed0 (train): environment: STEPS was '2', now '3'"),
        ("STEPS: 2", "STEPS: 2, LR: 1", "out/cells/all-seed0 (train): environment: LR was None, now '1'"),
        (
            "--lora_dropout 0",
            "--lora_dropout 1",
            "(train): flags was ['--lora_dropout', '0'], now ['--lora_dropout', '1']",
        ),
        ("model: llm", "model: other", "out/stages (first): environment: MODEL was 'llm', now 'other'"),
        ("SIZE: 7b", "SIZE: 13b", "out/stages (first): environment: SIZE was '7b', now '13b'"),
        ("top: top:2", "top: lower:2", "out/cells/top-seed0 (train): selection was 'top:2', now 'lower:2'"),
        ("--batch-size 4", "--batch-size 5", "(evaluate): flags was ['--batch-size', '4'], now ['--batch-size', '5']"),
        ("size 4}", "size 4, questions: {gqa: few}}", "(evaluate): questions of gqa was None, now 'few'"),
        ("score: --samples 8", "score: --samples 9", "out/cells/all-seed0 (score): flags was ['--samples', '8']"),
    ],
)
def test_other_settings_are_refused(small_study, command, old, new, why):
    command("study", "plan.yaml", "--set", "seeds=[0]")
    small_study.log()
    before = small_files(small_study.out)
    small_study.change(old, new)
    with pytest.raises(SystemExit) as stop:
        command("study", "plan.yaml", "--set", "seeds=[0]")
    assert why in str(stop.value)
    assert "Give the earlier settings, or another folder (--out out-2)" in str(stop.value)
    assert (small_study.log(), small_files(small_study.out)) == ([], before)


def test_settings_that_an_earlier_version_did_not_record(small_study, command):
    command("study", "plan.yaml", "--set", "seeds=[0]")
    small_study.log()
    for file in small_study.out.glob("cells/*/settings.json"):
        steps = json.loads(file.read_text()).items()
        older = {n: {key: v for key, v in step.items() if "questions" not in key} for n, step in steps}
        file.write_text(json.dumps(older))
    command("study", "plan.yaml", "--set", "seeds=[0]")
    assert small_study.log() == []


def test_a_moved_study_goes_on(small_study, command):
    command("study", "plan.yaml")
    small_study.log()
    small_study.out.rename(small_study.root / "moved")
    command("study", "plan.yaml", "--out", "moved")
    assert small_study.log() == []


def test_weights_are_deleted_when_nothing_needs_them(small_study, command, capsys):
    command("study", "plan.yaml", "--only", "selections", "--set", "keep_weights=false")
    folder = small_study.out / "cells"
    assert (folder / "all-seed0/train").is_dir(), "text, reversion and attention are left"
    assert not finished(folder / "all-seed0")
    assert not (folder / "bi-seed0/train").exists()
    command("study", "plan.yaml", "--set", "keep_weights=false")
    assert not any(path.is_dir() for path in folder.glob("*/train*"))
    small_study.log()
    # A kill between the two writes.
    (folder / "bi-seed0/train.deleted").mkdir()
    capsys.readouterr()
    command("study", "plan.yaml", "--list")
    assert "8 done, 0 running, 0 failed, 0 left" in capsys.readouterr().out
    # A new measurement needs the checkpoint again.
    small_study.change("curve: {rows: [top], seeds: [0]}", "curve: {rows: [top], seeds: [0, 1]}")
    command("study", "plan.yaml", "--set", "keep_weights=false")
    assert kinds(small_study.log()) == ["train top-seed1", "python", "python"]
    assert "top-seed1: train again, because its checkpoint was deleted" in capsys.readouterr().out
    assert not any(path.is_dir() for path in folder.glob("*/train*"))


def test_a_curve_after_a_second_training_has_its_scores(small_study, command, monkeypatch):
    """The second weights can differ in their last bits, and `curve` refuses the scores of other weights."""
    command("study", "plan.yaml", "--set", "keep_weights=false")
    small_study.log()
    done = small_study.out / "cells/all-seed0/done.json"
    content = json.loads(done.read_text())
    done.write_text(json.dumps(content | {"stages": content["stages"] | {"score": 100.0}}))
    small_study.change("curve: {rows: [top], seeds: [0]}", "curve: {rows: [top, all], seeds: [0]}")
    monkeypatch.setenv("FAIL", "visual_region score")
    with pytest.raises(SystemExit, match="all-seed0: score ended with 3"):
        command("study", "plan.yaml", "--set", "keep_weights=false")
    monkeypatch.delenv("FAIL")
    assert kinds(small_study.log()) == ["train all-seed0", "python"]
    command("study", "plan.yaml", "--set", "keep_weights=false")
    calls = small_study.log()
    assert [line.split()[3] for line in calls] == ["score", "curve"], "also after a failure in between"
    assert finished(small_study.out / "cells/all-seed0")
    assert json.loads(done.read_text())["stages"]["score"] < 100


def test_a_second_training_that_is_not_finished_is_no_checkpoint(small_study, command, monkeypatch):
    command("study", "plan.yaml", "--set", "keep_weights=false")
    small_study.log()
    small_study.change("curve: {rows: [top], seeds: [0]}", "curve: {rows: [top], seeds: [0, 1]}")
    folder = small_study.out / "cells/top-seed1"
    monkeypatch.setenv("FAIL", "train out/cells/top-seed1")
    with pytest.raises(SystemExit, match="top-seed1: train ended with 3"):
        command("study", "plan.yaml", "--set", "keep_weights=false")
    small_study.log()
    (folder / "train/checkpoint-20").mkdir(parents=True)
    assert Cell.read(folder).layers == (0, 2), "of the first training"
    monkeypatch.delenv("FAIL")
    command("study", "plan.yaml", "--set", "keep_weights=false")
    assert kinds(small_study.log()) == ["train top-seed1", "python", "python"]
    assert finished(folder)


def test_one_cell(small_study, command, capsys):
    with pytest.raises(
        SystemExit, match="--cell bi-seed0 needs the scores of all-seed0, which has none yet: run --cell all"
    ):
        command("study", "plan.yaml", "--cell", "bi-seed0")
    with pytest.raises(SystemExit, match="--cell bi-seed: there is no such cell; did you mean 'bi-seed"):
        command("study", "plan.yaml", "--cell", "bi-seed")
    assert small_study.log() == []
    command("study", "plan.yaml", "--cell", "1")
    assert kinds(small_study.log()) == ["stage", "train all-seed0", "python", "all", "all", "python", "python"]
    command("study", "plan.yaml", "--cell", "bi-seed0")
    assert kinds(small_study.log()) == ["train bi-seed0", "all"]
    assert "the cell is in out/cells/bi-seed0" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--cell bi-seed0 --only curve: the cell is not needed"):
        command("study", "plan.yaml", "--only", "curve", "--cell", "bi-seed0")
    with pytest.raises(SystemExit, match="--only depths: the plan has the experiments selections, shares"):
        command("study", "plan.yaml", "--only", "depths")


def test_two_processes_share_the_cells(small_study, study):
    small_study.change(MEASURED, "")
    first, said_first = study(wait=False, HOLD="train out/cells/all-seed0")
    deadline = time.monotonic() + 60
    while not (small_study.out / "cells/all-seed0/train.log").exists():
        assert first.poll() is None, said_first.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second, said_second = study(wait=False)
    # The second one runs all that does not need the scores of the held cell, and waits for it.
    while not finished(small_study.out / "cells/bi-seed1"):
        assert second.poll() is None, said_second.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (small_study.root / "released").touch()
    assert (first.wait(), second.wait()) == (0, 0), (said_first.read_text(), said_second.read_text())
    calls = small_study.log()
    assert len(calls) == len(set(calls)), "nothing was run twice"
    assert kinds(calls).count("stage") == 1
    assert "other processes run what all-seed0, bi-seed0 need; waiting for it" in said_second.read_text()
    assert all(result.finished for result in read_results(small_study.out))


def test_a_process_ends_when_others_run_what_is_left(small_study, command, capsys):
    with locked(small_study.out / "cells/top-seed1"):
        command("study", "plan.yaml")
        said = capsys.readouterr().out
        assert "other processes run what is left (top-seed1); there is nothing for this one" in said
        command("study", "plan.yaml", "--list")
        assert "7 done, 1 running, 0 failed, 0 left" in capsys.readouterr().out
    assert not any(" top-seed1/" in line for line in small_study.log())


def test_a_child_that_outlives_its_parent_keeps_the_cell(small_study, study, command, capsys):
    """A killed study leaves its training behind, which still writes into the cell's folder."""
    process, _ = study(wait=False, HOLD="train out/cells/all-seed0")
    log, deadline = small_study.root / "log", time.monotonic() + 60
    while not (log.exists() and "train" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    command("study", "plan.yaml", "--cell", "all-seed0")
    (small_study.root / "released").touch()
    assert "other processes run what is left (all-seed0)" in capsys.readouterr().out


def test_a_broken_cell_folder_is_named(small_study, command):
    command("study", "plan.yaml", "--set", "seeds=[0]")
    (small_study.out / "cells/all-seed0/done.json").write_text("{")
    with pytest.raises(SystemExit, match=r"out/cells/all-seed0/done.json is not valid JSON"):
        command("study", "plan.yaml", "--set", "seeds=[0]")


def test_a_cell_says_what_it_is(small_study, command):
    command("study", "plan.yaml", "--set", "seeds=[0]")
    cell = Cell.read(small_study.out / "cells/bi-seed0")
    assert cell == Cell("bi-seed0", "bi", "out/cells/all-seed0/scores.json#bi:2", 0, 100.0, ("selections",), (0, 2), 6)
    backbone = Cell.read(small_study.out / "cells/backbone")
    assert (backbone.selection, backbone.layers) == (None, None)
    recorded = json.loads((small_study.out / "cells/bi-seed0/settings.json").read_text())
    assert recorded["train"] == {
        "script": "scripts/train.sh",
        "flags": ["--lora_dropout", "0"],
        "environment": {"STEPS": "2", "MODEL": "llm"},
        "selection": "{scores}#bi:2",
        "scores_of": "all",
    }
