"""A command reads the own files of each folder once: the checkpoint is opened at the command line and handed on."""

import json
from collections import Counter
from pathlib import Path

import pytest

from llava.checkpoint import folder


@pytest.fixture
def reads(monkeypatch):
    """How often each config was read."""
    counts = Counter()
    real = folder._read_json

    def counted(path):
        counts[path] += 1
        return real(path)

    monkeypatch.setattr(folder, "_read_json", counted)
    return counts


def cases(tiny, lora, tmp_path):
    data = ("--data-path", tiny.data, "--image-folder", tiny.images, "--samples", 2, "--conv-mode", "v1")
    model = ("--model-path", lora)
    return {
        "score": (*model, *data, "--backbone", tiny.llm, "--output", tmp_path / "s.json"),
        "prune": (*model, "--block", 1, *data, "--output", tmp_path / "pruned"),
        "revert": (*model, "--layers", "3", "--output", tmp_path / "reverted"),
        "export": (*model, "--conv-mode", "v1", "--output", tmp_path / "stock"),
        "select": ("sparse-uniform:2", *model),
        "plan": (*model,),
    }


@pytest.mark.parametrize("name", ["score", "prune", "revert", "export", "select", "plan"])
def test_a_lora_and_its_base_are_read_once(command, reads, tiny, tiny_lora, tmp_path, name):
    command(name, *cases(tiny, tiny_lora, tmp_path)[name])
    base = Path(json.loads((tiny_lora / "adapter_config.json").read_text())["base_model_name_or_path"])
    expected = dict.fromkeys([tiny_lora / "adapter_config.json", tiny_lora / "config.json", base / "config.json"], 1)
    if name == "score":
        # The backbone is a checkpoint of its own on the command line, here the folder of the base.
        expected[base / "config.json"] += 1
    if name in ("select", "plan"):
        del expected[base / "config.json"]
    assert reads == expected
