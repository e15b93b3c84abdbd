"""The run over all benchmarks, with a Python that copies made scores."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from llava.checkpoint.card import write_card
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.identity import file_state
from llava.eval.benchmarks import BENCHMARKS
from llava.eval.scoring.report import Measure, Report
from llava.eval.suite import all as everything
from llava.eval.suite import benchmark as one
from llava.eval.suite.program_flags import check_program_flags
from llava.eval.suite.summary import left_out
from llava.flags import run_program
from tests.conftest import REPOSITORY

# Called as python -m llava.eval.suite.benchmark NAME CHECKPOINT [flags].
PYTHON = """#!/bin/bash
echo "${*:3}" >> "$LOG"
[ ! -e "$FAIL" ] || exit 3
cp "$SCORES/$3.json" "$RESULT"
"""


@pytest.fixture
def bench(tmp_path, tiny_llava, monkeypatch):
    """A data folder with two benchmarks, a Python that copies made scores, and a checkpoint that can be touched."""
    data, scores, python = tmp_path / "data", tmp_path / "scores", tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    for benchmark, right in (("gqa", 3), ("bbh", 1)):
        values = {f"q{i}": float(i < right) for i in range(4)}
        Report(benchmark, "accuracy", {"accuracy": Measure.of(list(values.values()))}, 4, 0, values).write(
            scores / f"{benchmark}.json"
        )
        for file in everything.BY_NAME[benchmark].data:
            (data / file).parent.mkdir(parents=True, exist_ok=True)
            (data / file).write_text("questions")
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_llava.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    log = tmp_path / "log"
    log.touch()
    for name, value in (("LOG", log), ("SCORES", scores), ("FAIL", tmp_path / "fail"), ("PYTHON", python)):
        monkeypatch.setenv(name, str(value))
    return tmp_path


def run(bench, *flags):
    arguments = ["all", str(bench / "model"), "--data", str(bench / "data"), *flags]
    old, sys.argv = sys.argv, arguments
    try:
        run_program(everything.main)
    finally:
        sys.argv = old


def calls(bench):
    text = (bench / "log").read_text().splitlines()
    (bench / "log").write_text("")
    return [line.split()[0] for line in text]


def test_runs_what_has_data_and_ends_in_the_row(bench, capsys):
    run(bench, "--batch-size", "7")
    said = capsys.readouterr().out
    assert "NO DATA for textvqa: " in said
    assert "textvqa/TextVQA_0.5.1_val.json is missing" in said
    assert f"{sum(benchmark.paper for benchmark in BENCHMARKS) - 2} of 11 benchmarks have no data" in said
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


def test_a_published_model_has_its_own_results(bench, monkeypatch):
    """One's own folder may have the published model's name."""
    for name in ("snapshot_download", "list_repo_files"):
        monkeypatch.setattr(f"llava.checkpoint.folder.{name}", lambda name, **options: str(bench / "model"))
    monkeypatch.chdir(REPOSITORY)
    run(bench)
    monkeypatch.setattr("sys.argv", ["all", "org/model", "--data", str(bench / "data")])
    everything.main()
    assert {path.name for path in (bench / "data/results").iterdir()} == {"model", "org_model"}


def test_the_model_card_gets_the_scores(bench, capsys):
    config = json.loads((bench / "model/config.json").read_text())
    write_card(bench / "model", config)
    run(bench)
    assert (bench / "data/results/model/summary.md").read_text() in (bench / "model/README.md").read_text()
    assert "and in the checkpoint's model card" in capsys.readouterr().out
    run(bench)
    assert calls(bench) == ["gqa", "bbh"], "a new card is no new checkpoint"


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
    assert "has changed; it is run again" in capsys.readouterr().out
    (bench / "data/results/model/gqa.json").unlink()
    run(bench, "--max_new_tokens", "3")
    assert calls(bench) == ["gqa"]


def test_a_score_by_an_older_rule_is_made_again(bench, capsys):
    """DocVQA was scored by another rule before; its state.json has none."""
    for file in everything.BY_NAME["docvqa"].data:
        (bench / "data" / file).parent.mkdir(parents=True, exist_ok=True)
        (bench / "data" / file).write_text("questions")
    Report("docvqa", "anls", {"anls": Measure.of([1.0, 0.5])}, 2, 0, {"a": 1.0, "b": 0.5}).write(
        bench / "scores/docvqa.json"
    )
    run(bench)
    folder = bench / "data/results/model"
    state = json.loads((folder / "state.json").read_text())
    assert [name for name, entry in state.items() if "rule" in entry] == ["docvqa"]
    del state["docvqa"]["rule"]
    (folder / "state.json").write_text(json.dumps(state))
    calls(bench)
    run(bench, "--only", "gqa")
    assert calls(bench) == []
    assert left_out(folder) == {
        "docvqa": "docvqa.json is by an older rule; run it again, which scores the same answers"
    }
    run(bench)
    assert calls(bench) == ["docvqa"]
    assert left_out(folder) == {}


def test_a_checkpoint_is_what_the_answers_go_by(bench, tiny):
    """One rule for scores and answers: whatever makes answers again makes scores again."""
    gqa, model, tower = everything.BY_NAME["gqa"], bench / "model", shutil.copytree(tiny.tower, bench / "tower")

    def state(*flags):
        return everything.fingerprint(open_checkpoint(model), gqa, flags, bench / "data")["checkpoint"]

    assert state() == file_state(open_checkpoint(model))
    assert state(f"--vision-tower={tower}") == state("--vision-tower", str(tower)) != state()
    before = state(f"--vision-tower={tower}")
    os.utime(next(tower.glob("*.safetensors")), ns=(1, 1))
    assert state(f"--vision-tower={tower}") != before


def test_a_failure_costs_only_itself(bench, capsys):
    run(bench, "--only", "bbh")
    (bench / "fail").touch()
    with pytest.raises(SystemExit, match="without gqa, which failed"):
        run(bench)
    assert "| 25.00 |" in capsys.readouterr().out
    assert [path.name for path in (bench / "data/results/model").glob("*gqa*")] == []
    (bench / "fail").unlink()
    calls(bench)
    run(bench)
    assert calls(bench) == ["gqa"]


def test_a_failure_keeps_the_old_score_and_says_that_it_is_old(bench, capsys):
    run(bench)
    folder = bench / "data/results/model"
    old = (folder / "gqa.json").read_text()
    assert "| 75.00 |" in (folder / "summary.md").read_text()
    (bench / "fail").touch()
    with pytest.raises(SystemExit, match="every benchmark failed: gqa"):
        run(bench, "--only", "gqa", "--max_new_tokens", "3")
    assert (folder / "gqa.json").read_text() == old
    summary = (folder / "summary.md").read_text()
    assert "75.00" not in summary
    assert "| 25.00 |" in summary
    assert "- GQA: not in the row: failed when it was run last; gqa.json is an older score" in summary
    assert left_out(folder).keys() == {"gqa"}
    # The old score is that of the old flags still.
    calls(bench)
    run(bench, "--only", "gqa")
    assert calls(bench) == []
    assert "| 75.00 |" in (folder / "summary.md").read_text()
    assert left_out(folder) == {}


def test_a_script_that_fails_after_its_score_changes_nothing(bench):
    run(bench, "--only", "gqa")
    folder = bench / "data/results/model"
    old = (folder / "gqa.json").read_text()
    (bench / "scores/gqa.json").write_text("{}")
    (bench / "python").write_text(PYTHON + "exit 1\n")
    with pytest.raises(SystemExit, match="every benchmark failed: gqa"):
        run(bench, "--only", "gqa", "--max_new_tokens", "3")
    assert (folder / "gqa.json").read_text() == old
    assert sorted(path.name for path in folder.iterdir()) == ["gqa.json", "state.json", "summary.json", "summary.md"]


def test_a_program_that_was_cut_off_gets_the_same_names_again(bench, monkeypatch):
    """The journal of a perplexity lies next to its score."""
    places = []

    def interrupted(_, env):
        places.append(env["RESULT"])
        Path(f"{env['RESULT']}.journal").write_text("half")
        raise KeyboardInterrupt

    original = everything.run_command
    monkeypatch.setattr(everything, "run_command", interrupted)
    for _ in range(2):
        with pytest.raises(SystemExit, match="130"):
            run(bench, "--only", "gqa")
    os.utime(next((bench / "model").glob("*.safetensors")), ns=(1, 1))
    with pytest.raises(SystemExit, match="130"):
        run(bench, "--only", "gqa")
    first, again, other = places
    assert first == again != other
    monkeypatch.setattr(everything, "run_command", original)
    run(bench, "--only", "gqa")
    assert not list((bench / "data/results/model").glob(".gqa*"))


@pytest.mark.parametrize("flag", ["--answers-file", "--question-file", "--model-path"])
def test_one_benchmark_scores_the_answers_that_it_makes(bench, capsys, monkeypatch, flag):
    monkeypatch.setattr(sys, "argv", ["benchmark", "gqa", str(bench / "model"), flag, "other"])
    with pytest.raises(SystemExit) as stop:
        run_program(one.main)
    assert f"{flag}: the scripts set this themselves" in str(stop.value)
    assert calls(bench) == []


def test_a_run_that_is_cut_off_leaves_no_summary_that_looks_current(bench, monkeypatch):
    run(bench)
    folder = bench / "data/results/model"

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    os.utime(next((bench / "model").glob("*.safetensors")), ns=(1, 1))
    monkeypatch.setattr(everything, "run_command", interrupted)
    with pytest.raises(SystemExit, match="130"):
        run(bench, "--only", "gqa")
    summary = (folder / "summary.md").read_text()
    assert "- GQA: not in the row: not finished; gqa.json is an older score" in summary
    assert "- BIG-bench-hard: not in the row: bbh.json is of other files than the checkpoint has now" in summary
    assert "75.00" not in summary
    assert "25.00" not in summary
    assert (folder / "gqa.json").is_file()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batchsize", "4"], r"--batchsize is no flag of gqa, bbh; did you mean --batch-size\? "),
        (["--require_all"], r"did you mean --require-all\? "),
        (["--batch-size", "none"], "argument --batch-size: 'none' is neither auto nor a number"),
        (["--dtype", "fp64"], "argument --dtype: invalid choice: 'fp64'"),
        (["--top_p", "2", "--num_beams", "0"], "--top_p 2.0: more than 0, at most 1; --num_beams 0: 1 or more"),
        (["--answers-file", "a.jsonl"], "--answers-file: the scripts set this themselves"),
        (["--conv-mode", "v7"], "v7"),
        (["tdiuc"], "tdiuc is no flag of gqa, bbh "),
    ],
)
def test_flags_that_no_program_takes_are_refused_before_anything_starts(bench, capfd, flags, words):
    run(bench)
    calls(bench)
    folder = bench / "data/results/model"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    capfd.readouterr()
    with pytest.raises(SystemExit, match=words) as refusal:
        run(bench, *flags)
    assert str(refusal.value).startswith("error: ")
    assert "\n" not in str(refusal.value)
    assert "usage" not in capfd.readouterr().err
    assert calls(bench) == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_flag_of_some_programs_names_the_others():
    chosen = [everything.BY_NAME[name] for name in ("gqa", "mmlu", "perplexity")]
    with pytest.raises(ValueError, match="--skip-missing-images is no flag of mmlu, perplexity; run these apart"):
        check_program_flags(chosen, ["--skip-missing-images"])
    check_program_flags(chosen[:1], ["--skip-missing-images", "--batch-size", "auto"])


@pytest.mark.parametrize("name", [b.name for b in everything.BY_NAME.values() if b.paper] + ["easy_vqa"])
def test_each_script_starts_the_program_of_the_table(name, tmp_path):
    environment = os.environ | {"DRY_RUN": "1", "PYTHON": sys.executable, "DATA": str(tmp_path)}
    command = ["bash", f"scripts/eval/{name}.sh", "checkpoint"]
    said = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout
    module = f"llava.eval.{everything.BY_NAME[name].program}"
    words = shlex.split(next(line for line in said.splitlines() if module in line))
    args = import_module(module).make_parser().parse_args(words[words.index(module) + 1 :])
    assert args.model_path == "checkpoint"


@pytest.mark.parametrize("text", ['{"gqa": ', "[]", '{"gqa": 3}'])
def test_a_broken_record_of_what_is_finished_is_named(bench, text):
    run(bench)
    calls(bench)
    folder = bench / "data/results/model"
    (folder / "state.json").write_text(text)
    with pytest.raises(SystemExit, match=r"error: .*state\.json is broken, .* delete it and run again") as refusal:
        run(bench)
    assert "\n" not in str(refusal.value)
    assert calls(bench) == []
    (folder / "state.json").unlink()
    run(bench, "--only", "gqa")
    summary = (folder / "summary.md").read_text()
    assert "- BIG-bench-hard: not in the row: state.json does not say what bbh.json was made from" in summary


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


def test_wrong_flags_do_not_wait_for_torch():
    """Importing torch takes seconds; a script says what is wrong with its flags before that."""
    program = "import sys; import llava.eval.suite.all, llava.eval.suite.benchmark; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY).returncode == 0
    command = [sys.executable, "-m", "llava.eval.suite.benchmark", "gqa", "checkpoint", "--batchsize", "3"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.stderr.startswith("error: --batchsize is no flag of gqa; did you mean --batch-size?")
    assert not result.stdout
