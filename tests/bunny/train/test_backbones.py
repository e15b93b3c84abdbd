"""Every backbone in every mode: what trains, what is written, that it loads again, and that it resumes."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from llava.constants import IMAGE_TOKEN_INDEX
from llava.families import known_families
from llava.model.builder import load_pretrained_model, load_tokenizer

LORA = {"lora_enable": True, "lora_r": 2, "lora_alpha": 4}
MODES = {
    "projector": {"tune_mm_mlp_adapter": True},
    "lora": LORA | {"tune_layers": "0,3"},
    "lora-all": LORA,
    "full": {"tune_layers": "1"},
    "full-all": {},
}
TRAINED_LAYERS = {"projector": set(), "lora": {0, 3}, "lora-all": {0, 1, 2, 3}, "full": {1}, "full-all": {0, 1, 2, 3}}
VERSIONS = {"llava_llama": "v1", "llava_mistral": "mistral_instruct"}
"""Bunny finds the template of its backbone by itself."""


def flags_of(family, mode, tiny, backbones, siglip):
    version = VERSIONS.get(family.model_type)
    flags = MODES[mode] | {
        "model_name_or_path": backbones[family.model_type],
        "vision_tower": tiny.tower if family.package == "llava" else siglip,
        "version": version,
        "max_steps": 3,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    if mode == "projector":
        flags |= {"data_path": tiny.captions, "version": version and "plain"}
    return flags


def logits(model):
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, 5, 6], [1, 7, IMAGE_TOKEN_INDEX, 9]])
    images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=ids, images=images).logits


def weights_of(folder):
    found = {}
    for name in ("adapter_model.safetensors", "model.safetensors"):
        if (folder / name).exists():
            found |= load_file(folder / name)
    for name in ("non_lora_trainables.bin", "mm_projector.bin"):
        if (folder / name).exists():
            found |= torch.load(folder / name, weights_only=True)
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", known_families())
def test_train_save_load_resume(name, mode, tiny, backbones, siglip, train_flags, tmp_path, run):
    family, whole = known_families()[name], tmp_path / "whole"
    flags = flags_of(family, mode, tiny, backbones, siglip)
    trained = run(family.package, train_flags(whole, **flags))

    base_folder = None if mode.startswith("full") else str(backbones[name])
    loaded = load_pretrained_model(str(whole), base_folder, device="cpu")[1]
    assert loaded.config.model_type == name
    assert type(loaded) is family.load_model_class()
    # The adapter is merged in the loaded model and apart in the trained one.
    torch.testing.assert_close(logits(loaded), logits(trained), atol=1e-5, rtol=1e-4)

    base, state = load_file(backbones[name] / "model.safetensors"), loaded.state_dict()
    changed = {key for key, value in base.items() if key != "lm_head.bias" and not torch.equal(state[key], value)}
    assert {int(key.split(".")[2]) for key in changed if ".layers." in key} == TRAINED_LAYERS[mode]
    assert any(".layers." not in key for key in changed) == (mode == "full-all")
    tower = load_file(flags["vision_tower"] / "model.safetensors")
    own = {
        key.removeprefix("vision_model."): v for key, v in loaded.get_vision_tower().vision_tower.state_dict().items()
    }
    assert all(torch.equal(own[key.removeprefix("vision_model.")], value) for key, value in tower.items())

    if mode in ("projector", "lora", "full"):
        stopped = tmp_path / "stopped"
        shutil.copytree(whole / "checkpoint-2", stopped / "checkpoint-2")
        run(family.package, train_flags(stopped, **flags))
        first, second = weights_of(whole), weights_of(stopped)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_end_of_turn_is_in_the_result(tiny, backbones, siglip, train_flags, tmp_path, run):
    """Llama-3-Instruct's own eos is not what Bunny's template ends turns with."""
    flags = flags_of(known_families()["bunny-llama"], "full", tiny, backbones, siglip) | {
        "max_steps": 1,
        "save_strategy": "no",
    }
    assert load_tokenizer(backbones["bunny-llama"]).eos_token == "<|eot_id|>"
    run("bunny", train_flags(tmp_path / "out", **flags))
    tokenizer, model, _, _ = load_pretrained_model(str(tmp_path / "out"), device="cpu")
    assert tokenizer.eos_token == "<|end_of_text|>"
    stops = model.generation_config.eos_token_id
    assert tokenizer.eos_token_id in (stops if isinstance(stops, list) else [stops])
