"""The benchmarks of the quickstart's stage 2: which command a checkout has, and what is measured of it."""

import argparse
import json
import sys

import pytest

from scripts.bench import busy, quickstart, stage2
from scripts.bench.stage2 import Stage2, stage2_command
from tests.conftest import REPOSITORY

QUICKSTART = """
"$VENV/bin/python" -m playground.embedded.prepare
"$VENV/bin/python" llava/train/train_mem.py --lora_enable True --model_name_or_path playground/models/llm \\
    --pretrain_mm_mlp_adapter "$OUT/pretrain/mm_projector.bin" --max_steps 240
"""
TRAINER = """
import json, os, sys, time
from pathlib import Path
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
output, steps = Path(flags["--output_dir"]), int(flags["--max_steps"])
output.mkdir()
history = []
for step in range(steps):
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    history.append({"loss": 1 / (step + 1)})
    print(history[-1])
(output / "trainer_state.json").write_text(json.dumps({"log_history": [*history, {"train_loss": 1}]}))
Path(os.environ["SEEN"]).write_text(json.dumps({"flags": flags, "waits": os.environ.get("OMP_WAIT_POLICY")}))
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    root = tmp_path / "checkout"
    texts = {"setup.py": "", "constraints.txt": "", "playground/requirements.txt": ""}
    texts |= {"scripts/quickstart.sh": QUICKSTART, "llava/train/train_mem.py": TRAINER}
    texts |= {"playground/data/easy_vqa/finetune.json": json.dumps(list(range(100)))}
    texts |= {"out/pretrain/mm_projector.bin": ""}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for module in (stage2, quickstart, busy):
        monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setenv("SEEN", str(tmp_path / "seen.json"))
    return root


def test_the_trainer_runs_with_a_checkouts_own_flags_on_the_same_samples(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    work = tmp_path / "work"
    work.mkdir()
    args = argparse.Namespace(out=checkout / "out", steps=4, flags=["--version", "v1"])
    steps = Stage2(args, work).run(checkout, {"OMP_NUM_THREADS": "1"})
    assert steps.losses == (1, 1 / 2, 1 / 3, 1 / 4)
    assert steps.clock >= 0.01
    assert json.loads((work / "data.json").read_text()) == list(range(0, 96, 3))
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["waits"] is None
    wanted = {
        "--lora_enable": "True",
        "--model_name_or_path": str(checkout / "playground/models/llm"),
        "--pretrain_mm_mlp_adapter": str(checkout / "out/pretrain/mm_projector.bin"),
        "--max_steps": "4",
        "--data_path": str(work / "data.json"),
        "--version": "v1",
    }
    assert wanted.items() <= seen["flags"].items()


def test_the_quickstart_has_a_stage_2(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    malloc, flags = stage2_command(REPOSITORY)
    assert int(malloc["MALLOC_MMAP_THRESHOLD_"]) == 32 * 2**20
    values = dict(zip(flags[::2], flags[1::2], strict=True))
    assert values["--tune_layers"] == "sparse-uniform:25%"
    assert values["--pretrain_mm_mlp_adapter"] == "OUT/pretrain/mm_projector.bin"


def test_without_a_projector_it_says_what_to_run(checkout, tmp_path):
    args = argparse.Namespace(out=tmp_path, steps=4, flags=[])
    with pytest.raises(ValueError, match=r"mm_projector.bin does not exist; run bash scripts/quickstart.sh"):
        Stage2(args, tmp_path)


def test_two_checkouts_are_compared(checkout, monkeypatch, capsys):
    words = ["--other", str(checkout), "--out", str(checkout / "out"), "--steps", "3", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["quickstart", *words, "--", "--version", "v1"])
    quickstart.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:-1]] == ["before", "now"]
    assert lines[-1] == "losses differ by at most 0%: 1.0000, 0.5000, 0.3333"


def test_each_way_of_waiting_is_measured_alone_and_with_a_busy_loop(checkout, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["busy", "--out", str(checkout / "out"), "--steps", "2", "--rounds", "1"])
    busy.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(")")[0] + ")" for line in lines[-len(busy.WAYS) :]] == list(busy.WAYS)
    assert sum("with a busy loop:" in line for line in lines) == len(busy.WAYS)
