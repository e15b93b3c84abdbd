"""Bunny's recipe to its end: two LoRA runs, the second with the tower, merged and averaged."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bunny.model.builder import load_pretrained_model

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["tower-last", "tower-first"])
def test_merged_and_averaged(order, backbones, siglip, train_flags, tmp_path, run, monkeypatch):
    def script(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")

    base, merged = backbones["bunny-qwen2"], []
    for number, layers in enumerate(("0,3", "0,1")):
        flags = {"lora_enable": True, "lora_r": 2, "tune_layers": layers, "version": None, "max_steps": 2}
        flags |= {"model_name_or_path": base, "vision_tower": siglip, "unfreeze_vision_tower": number == 1}
        run("bunny", train_flags(tmp_path / f"recipe{number}", **flags))
        merged.append(tmp_path / f"merged{number}")
        words = ["--model-path", tmp_path / f"recipe{number}", "--model-base", base, "--model-type", "qwen1.5-1.8b"]
        script("merge_lora_weights.py", *words, "--save-model-path", merged[-1])
    paths = [merged[i] for i in order]
    script("average_weights.py", "--model-paths", *paths, "--weights", 0.3, 0.7, "--output", tmp_path / "final")

    model = load_pretrained_model(str(tmp_path / "final"), device="cpu")[1]
    first, second = (load_file(path / "model.safetensors") for path in paths)
    state = model.state_dict()
    inside, level = "model.vision_tower.vision_tower.", "vision_model."
    for name, value in first.items():
        expected = 0.3 * value.float() + 0.7 * second[name].float()
        torch.testing.assert_close(state[name.replace(inside + level, inside)].float(), expected, atol=1e-6, rtol=1e-5)
    assert model.config.visual_region["layers"] == [0, 1, 3]


def test_model_type_of_another_backbone(make_bunny, tmp_path, monkeypatch):
    words = ["--model-path", make_bunny("bunny-phi"), "--model-type", "phi-3", "--save-model-path", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["merge_lora_weights.py", *map(str, words)])
    with pytest.raises(SystemExit, match=r"values that fit it: phi-1\.5, phi-2"):
        runpy.run_path(str(SCRIPTS / "merge_lora_weights.py"), run_name="__main__")
    assert not (tmp_path / "out").exists()
