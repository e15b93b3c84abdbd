"""Every training script expands to a command whose flags parse."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from llava.train.arguments import parse_arguments

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("script", ["pretrain.sh", "finetune_lora.sh"])
def test_dry_run(script, tmp_path):
    environment = os.environ | {"DRY_RUN": "1", "TUNE_LAYERS": "sparse-uniform:25%", "OUTPUT": str(tmp_path / "a b")}
    command = ["bash", f"scripts/train/{script}", "--seed", "3"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    words = shlex.split(result.stdout)
    assert words[1] == "llava/train/train_mem.py"
    model, _, training = parse_arguments(words[2:])
    assert training.output_dir == str(tmp_path / "a b")
    assert training.seed == 3
    assert model.tune_layers == ("sparse-uniform:25%" if script == "finetune_lora.sh" else None)


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").rglob("*.sh")), ids=lambda p: p.name)
def test_syntax(script):
    subprocess.run(["bash", "-n", script], check=True)
