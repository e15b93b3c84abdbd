"""scripts/bench/gpu.sh small, on the CPU: it measures what it can, notes what fails, and goes on after a kill."""

import json
import os
import re
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest

from llava.eval.answering.batching import plan
from scripts.bench import gpu_answers
from tests.conftest import REPOSITORY

SMALL = ["--preset", "tiny", "--device", "cpu", "--dtype", "fp32", "--rank", "4", "--steps", "1"]
CHECK = "correctness: rows without padding, grouped heads of 64"
LIGER = "correctness: kernels liger"
TRAINED = ("training: 25% of layers, recompute auto, no padding", "training: 25% of layers, recompute all, no padding")
PATTERN = f"^({CHECK}|{LIGER}|{'|'.join(TRAINED)})$"


@pytest.fixture
def bench(python, tmp_path):
    def run(*flags, budget=300, **settings):
        environment = os.environ | {"OUT": str(tmp_path / "out"), "PYTHON": python, "BUDGET": str(budget)} | settings
        command = ["bash", REPOSITORY / "scripts/bench/gpu.sh", *SMALL, *flags]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


def rows_of(output):
    return json.loads((output / "gpu.json").read_text())["rows"]


def test_it_goes_on_after_a_kill_and_writes_one_table(bench, start, tmp_path):
    output = tmp_path / "out"
    journal = output / "gpu.md.journal"
    words = [REPOSITORY / "scripts/bench/gpu.py", "--output", output, *SMALL, "--only", PATTERN]
    with open(tmp_path / "log", "wb") as log:
        killed = start(*words, files=(os.open(os.devnull, os.O_RDONLY), log.fileno(), log.fileno()))
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
            assert killed.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    (first,) = [json.loads(line) for line in journal.read_text().splitlines()[1:2]]

    done = bench("--only", PATTERN)
    assert done.returncode == 0, done.stderr
    rows = rows_of(output)
    assert rows.keys() == {CHECK, LIGER, *TRAINED}
    # The row before the kill was not measured again.
    assert [CHECK, rows[CHECK]] == first
    assert rows[CHECK]["note"].startswith("rows; loss ")
    assert "Liger's kernels need a GPU" in rows[LIGER]["error"]
    for name in TRAINED:
        assert rows[name]["speed"] > 0
        assert rows[name]["estimated_gib"] > 0
    # Recomputing changes no loss.
    auto, everything = (re.match(r"loss (\S+); (\d) of 8", rows[name]["note"]).groups() for name in TRAINED)
    assert float(auto[0]) == pytest.approx(float(everything[0]), rel=1e-4)
    assert (auto[1], everything[1]) == ("0", "8")

    lines = (output / "gpu.md").read_text().splitlines()
    (named,) = [line for line in lines if f"{TRAINED[1].partition(': ')[2]} |" in line]
    assert f"{rows[TRAINED[1]]['speed']:.2f} samples/s" in named
    measured = [line for line in lines if line.startswith("| ") and "| not measured |" not in line]
    assert len(measured) == 1 + len(rows)
    assert "flash-attn not installed" in lines[0]
    assert sorted(path.name for path in output.iterdir()) == ["gpu.json", "gpu.md", "gpu.md.journal"]


def test_a_row_that_takes_too_long_costs_no_other_row(bench, tmp_path):
    slow = TRAINED[0]
    done = bench("--only", f"^({slow}|{CHECK})$", "--limit", "1", "--steps", "100000")
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "out")
    assert rows[slow]["error"] == "took longer than 1 s"
    assert "error" not in rows[CHECK] or rows[CHECK]["error"] == "took longer than 1 s"
    # Rows of other settings do not come into the same table.
    assert "steps was 100000, now 1" in bench("--only", f"^{slow}$", "--retry").stderr


def test_packages_that_are_missing_or_old_end_it_in_one_line(bench, tmp_path):
    for package in ("transformers-5.17.0", "peft-0.9.1", "torch-2.11.0+cu130"):
        name, _, version = package.partition("-")
        folder = tmp_path / "site" / f"{package}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    done = bench(PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    lowest = dict(re.findall(r'"(transformers|peft)(>=.+)",', (REPOSITORY / "setup.py").read_text()))
    named = f"transformers{lowest['transformers']} (5.17.0 is installed), peft{lowest['peft']} (0.9.1 is installed): "
    assert line.startswith(f"error: this needs {named}")
    assert "WHEELS" in line
    assert not (tmp_path / "out").exists()


def test_a_machine_where_rows_fail_alike_and_another_one(bench, tmp_path):
    """Two rows of a kind with one error are enough. The driver may differ between starts, the GPU may not."""

    def on(gpu, driver):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho '{driver}, {gpu}, 81559 MiB'\n")
        program.chmod(0o755)
        places = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}
        return bench("--device", "cuda", "--only", "correctness: rows without padding", **places)

    output = tmp_path / "out"
    assert on("GPU of a test", "580.1").returncode == 0
    first = rows_of(output)
    (error,) = {row["error"] for row in first.values()}
    assert len(first) == 2
    note = f"| not measured: 2 other rows of its kind ended with {error} |"
    assert (output / "gpu.md").read_text().count(note) == 2

    done = on("GPU of a test", "580.2")
    assert done.returncode == 0, done.stderr
    rows = rows_of(output)
    assert len(rows) == 4
    assert first.items() < rows.items()
    assert (output / "gpu.md").read_text().startswith("GPU of a test, 81559 MiB, driver 580.1, driver 580.2; CUDA ")
    assert "hardware was 'GPU of a test, 81559 MiB', now 'Another" in on("Another", "580.2").stderr


@pytest.mark.parametrize(("row", "prompts"), [("runner", 4), ("runner, 10 questions an image", 5)])
def test_the_plan_of_the_runner_is_not_timed(monkeypatch, row, prompts):
    monkeypatch.setattr(gpu_answers, "plan", lambda *arguments: planned.append(plan(*arguments)) or planned[-1])
    monkeypatch.setattr(gpu_answers, "_timed", lambda args, run: timed.append(len(planned)) or run() or 1.0)
    planned, timed = [], []
    found = gpu_answers.ANSWERS[row](SimpleNamespace(preset="tiny", device="cpu", dtype="fp32"))
    assert (len(planned), timed) == (1, [1])
    assert found["note"] == f"{prompts} prompts of 41 tokens, 8 new ones; batches: {len(planned[0])}"


def test_without_time_left_all_rows_are_listed(bench, tmp_path):
    done = bench(budget=1)
    assert done.returncode == 0, done.stderr
    assert rows_of(tmp_path / "out") == {}
    assert "0 rows" in done.stdout
    assert (tmp_path / "out/gpu.md").read_text().count("| not measured |") > 30
