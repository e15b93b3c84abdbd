"""The benchmark of a study's rows: the plan's trainings in turn, and their ratios."""

import runpy
import sys

import pytest

from tests.conftest import REPOSITORY

SECONDS = r"""
case $TUNE_LAYERS in all) seconds=4.0 ;; *) seconds=3.0 ;; esac
sed -i "s/\"device_hours\"/\"seconds\": $seconds, \"device_hours\"/" "$OUTPUT/run.json"
"""


def bench(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["study_rows.py", *map(str, words)])
    runpy.run_path(str(REPOSITORY / "scripts/bench/study_rows.py"), run_name="__main__")


def test_rows_train_in_turn(small_study, monkeypatch, capsys):
    script = small_study.root / "scripts/train.sh"
    script.write_text(script.read_text() + SECONDS)
    bench(monkeypatch, small_study.file, "--rows", "all", "top", "--steps", 7, "--rounds", 2)
    calls = small_study.log()
    assert [call.split("TUNE_LAYERS=")[1].split()[0] for call in calls] == ["all", "top:2"] * 2
    assert all(call.endswith("--lora_dropout 0 --seed 0 --max_steps 7 --save_strategy no") for call in calls)
    assert len({call.split()[1] for call in calls}) == 4
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["all", "4.0", "1.00", "1.00", "1.00"] in lines
    assert ["top", "3.0", "0.75", "0.75", "0.75"] in lines
    assert not small_study.out.exists()


def test_wrong_rows_and_failed_trainings(small_study, monkeypatch, capsys):
    for words, message in (
        (("--rows", "all", "nothing"), "trains no row nothing with all the data; there are: all, top, bi"),
        (("--rows", "backbone"), "trains no row backbone"),
        (("--rows", "top"), "a training ended with status 3: it broke"),
    ):
        monkeypatch.setenv("FAIL", "train")
        with pytest.raises(SystemExit) as ended:
            bench(monkeypatch, small_study.file, *words)
        assert message in f"{ended.value} {capsys.readouterr().err}"
