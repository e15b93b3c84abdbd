"""The run over all benchmarks, with scripts that write made scores."""

import json
import os
from pathlib import Path

import pytest

from llava.eval import all as everything
from llava.eval.benchmarks import BENCHMARKS
from llava.eval.report import Measure, Report

SCRIPT = """echo "$0 $*" >> "$LOG"
[ ! -e "$FAIL" ] || exit 3
cp "$SCORES/$(basename "$0" .sh).json" "$RESULT"
"""


@pytest.fixture
def bench(tmp_path, tiny_llava, monkeypatch):
    """A data folder with two benchmarks, scripts that copy made scores, and a checkpoint that can be touched."""
    data, scripts, scores = tmp_path / "data", tmp_path / "scripts", tmp_path / "scores"
    scripts.mkdir()
    for benchmark, right in (("gqa", 3), ("bbh", 1)):
        values = {f"q{i}": float(i < right) for i in range(4)}
        Report(benchmark, "accuracy", {"accuracy": Measure.of(list(values.values()))}, 4, 0, values).write(
            scores / f"{benchmark}.json"
        )
        (scripts / f"{benchmark}.sh").write_text(SCRIPT)
        for file in everything.BY_NAME[benchmark].data:
            (data / file).parent.mkdir(parents=True, exist_ok=True)
            (data / file).write_text("questions")
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_llava.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    log = tmp_path / "log"
    log.touch()
    for name, value in (("LOG", log), ("SCORES", scores), ("FAIL", tmp_path / "fail")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(everything, "SCRIPTS", scripts)
    return tmp_path


def run(bench, *flags):
    import sys

    arguments = ["all", str(bench / "model"), "--data", str(bench / "data"), *flags]
    old, sys.argv = sys.argv, arguments
    try:
        everything.main()
    finally:
        sys.argv = old


def calls(bench):
    text = (bench / "log").read_text().splitlines()
    (bench / "log").write_text("")
    return [Path(line.split()[0]).stem for line in text]


def test_runs_what_has_data_and_ends_in_the_row(bench, capsys):
    run(bench, "--batch-size", "7")
    said = capsys.readouterr().out
    assert "NO DATA for textvqa: " in said
    assert "textvqa/TextVQA_0.5.1_val.json is missing" in said
    assert f"{len(BENCHMARKS) - 3} of 11 benchmarks have no data" in said
    assert "--batch-size 7" in (bench / "log").read_text()
    assert calls(bench) == ["gqa", "bbh"]
    folder = bench / "data/results/model"
    row = json.loads((folder / "summary.json").read_text())["row"]
    assert (row["GQA"], row["BIG-bench-hard"], row["TextVQA"]) == (75, 25, None)
    assert (row["average"], row["average_over"]) == (75, 1)
    table = (folder / "summary.md").read_text()
    assert "| model | – | – | – | – | – | 75.00 | – | – | 75.00 (of 1) | – | 25.00 | – |" in table
    assert "- GQA: accuracy 75.00%" in table
    assert table in said


def test_passes_over_what_is_finished_while_nothing_changed(bench, capsys):
    run(bench)
    calls(bench)
    run(bench)
    assert calls(bench) == []
    assert capsys.readouterr().out.count("done before") == 2
    run(bench, "--max_new_tokens", "3")
    assert calls(bench) == ["gqa", "bbh"]
    run(bench, "--max_new_tokens", "3")
    (bench / "data/bbh/questions.jsonl").write_text("other questions")
    run(bench, "--max_new_tokens", "3")
    assert calls(bench) == ["bbh"]
    weights = next((bench / "model").glob("*.safetensors"))
    os.utime(weights, ns=(1, 1))
    run(bench, "--max_new_tokens", "3")
    assert calls(bench) == ["gqa", "bbh"]
    assert "have changed since" in capsys.readouterr().out
    (bench / "data/results/model/gqa.json").unlink()
    run(bench, "--max_new_tokens", "3")
    assert calls(bench) == ["gqa"]


def test_a_failure_costs_only_itself(bench, capsys):
    run(bench, "--only", "bbh")
    (bench / "fail").touch()
    with pytest.raises(SystemExit, match="without gqa, which failed"):
        run(bench)
    assert "| 25.00 |" in capsys.readouterr().out
    assert not (bench / "data/results/model/gqa.json").exists()
    (bench / "fail").unlink()
    calls(bench)
    run(bench)
    assert calls(bench) == ["gqa"]


def test_errors(bench, capsys):
    with pytest.raises(SystemExit, match="--require-all: no data for ocrvqa, docvqa"):
        run(bench, "--require-all")
    with pytest.raises(SystemExit, match="no benchmark has its data"):
        run(bench, "--only", "textvqa")
    (bench / "fail").touch()
    with pytest.raises(SystemExit, match="every benchmark failed: gqa, bbh"):
        run(bench)
    (bench / "model/config.json").unlink()
    with pytest.raises(SystemExit, match=r"no config\.json"):
        run(bench)
    assert calls(bench) == ["gqa", "bbh"]
