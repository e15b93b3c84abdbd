"""A change in any one layer, in an adapter's scale or in the record makes another model; another layout does not."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.identity import digest

LAYERS = 8


def identity(folder):
    return digest(open_checkpoint(folder))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Matrices large enough that only a part of each is read."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=384, num_hidden_layers=LAYERS, num_attention_heads=4
    )
    folder = tmp_path_factory.mktemp("wide") / "wide"
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def edited(folder, target, change):
    target = shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


def test_each_layer_in_turn(wide, tmp_path):
    found = {identity(wide)}
    for i in range(LAYERS):

        def change(weights, name=f"model.layers.{i}.mlp.up_proj.weight"):
            weights[name] += 1e-3 * torch.randn(weights[name].shape)

        found.add(identity(edited(wide, tmp_path / str(i), change)))
    assert len(found) == LAYERS + 1


def test_each_layer_set_back_in_turn(command, tiny, tiny_lora, tmp_path):
    found = {identity(tiny_lora)}
    for layer in (0, 3):
        command("revert", "--model-path", tiny_lora, "--layers", layer, "--output", tmp_path / str(layer))
        found.add(identity(tmp_path / str(layer)))
    assert len(found) == 3


def test_layers_exchanged(wide, tmp_path):
    def change(weights):
        names = [f"model.layers.{i}.mlp.up_proj.weight" for i in (1, 6)]
        weights[names[0]], weights[names[1]] = weights[names[1]].clone(), weights[names[0]].clone()

    assert identity(edited(wide, tmp_path / "x", change)) != identity(wide)


def test_the_adapters_scale_and_the_record(tiny_lora, tmp_path):
    before = identity(tiny_lora)
    for file, change in (
        ("adapter_config.json", {"lora_alpha": 99}),
        ("config.json", {"visual_region": {"layers": [0, 3], "num_layers": 6, "reverted_layers": [3]}}),
        ("config.json", {"rope_theta": 1.0}),
    ):
        folder = shutil.copytree(tiny_lora, tmp_path / "lora", dirs_exist_ok=True)
        values = json.loads((folder / file).read_text()) | change
        (folder / file).write_text(json.dumps(values))
        assert identity(folder) != before, change


def test_places_versions_and_layouts_do_not_count(wide, tiny_lora, tmp_path):
    folder = shutil.copytree(wide, tmp_path / "moved")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"_name_or_path": "/x", "transformers_version": "4"}))
    assert identity(folder) == identity(wide)
    LlamaForCausalLM.from_pretrained(wide).save_pretrained(tmp_path / "shards", max_shard_size="300KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    assert identity(tmp_path / "shards") == identity(wide)
    torch.save(load_file(wide / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert identity(folder) == identity(wide)
    lora = shutil.copytree(tiny_lora, tmp_path / "lora")
    values = json.loads((lora / "adapter_config.json").read_text())
    found = set()
    for order in (["q_proj", "v_proj"], ["v_proj", "q_proj"]):
        (lora / "adapter_config.json").write_text(json.dumps(values | {"target_modules": order}))
        found.add(identity(lora))
    assert len(found) == 1
