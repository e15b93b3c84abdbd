"""A change in any one layer, in an adapter's scale or in the record makes another model; another layout does not."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.identity import base_values, digest

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


def test_single_numbers_of_a_quantised_layer_are_left_out(wide, tmp_path):
    """bitsandbytes stores the format of an 8-bit weight as a tensor without dimensions."""
    name = "model.layers.0.mlp.up_proj.weight_format"
    folder = edited(wide, tmp_path / "stored", lambda weights: weights.update({name: torch.tensor(0)}))
    assert base_values(open_checkpoint(folder).tensors) == base_values(open_checkpoint(wide).tensors)


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


def sha(*parts):
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def weights_by_recipe(tensors):
    """Name, dtype, shape and 8 blocks of 8 KiB of every tensor, in the order of names."""
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}
    parts = []
    for name, tensor in sorted(tensors.items()):
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        parts.append(json.dumps([name, names[tensor.dtype], list(tensor.shape)]).encode())
        starts = [(len(raw) - 8192) * place // 7 for place in range(8)] if len(raw) > 65536 else None
        parts += [raw[start : start + 8192] for start in starts] if starts else [raw]
    return sha(*parts)


def settings_by_recipe(file):
    left_out = {
        *("_name_or_path", "architectures", "transformers_version", "mm_vision_tower", "torch_dtype", "dtype"),
        *("use_cache", "base_model_name_or_path", "revision", "inference_mode", "peft_version", "task_type"),
        "auto_mapping",
    }
    values = json.loads(file.read_text())
    lists = ("target_modules", "modules_to_save", "exclude_modules")
    return {k: sorted(v) if k in lists and isinstance(v, list) else v for k, v in values.items() if k not in left_out}


def test_the_digest_is_the_one_of_score_files_written_before(wide, tiny, tiny_lora):
    """Score files, block distances and perplexities hold it: a change of the recipe would make them invalid."""

    def total(*parts):
        return sha(json.dumps(parts, sort_keys=True).encode())

    def full(folder):
        return settings_by_recipe(folder / "config.json"), weights_by_recipe(load_file(folder / "model.safetensors"))

    config, weights = full(wide)
    assert identity(wide) == total(config, {}, weights)
    trained = torch.load(tiny_lora / "non_lora_trainables.bin", weights_only=True)
    assert identity(tiny_lora) == total(
        settings_by_recipe(tiny_lora / "config.json"),
        settings_by_recipe(tiny_lora / "adapter_config.json"),
        weights_by_recipe(trained),
        weights_by_recipe(load_file(tiny_lora / "adapter_model.safetensors")),
        *full(tiny.llm),
    )


def test_a_base_is_known_by_the_values_written_before(tiny):
    """base_fingerprint.json: shape, first and last value of the middle row of every tensor."""
    expected = {}
    for name, tensor in load_file(tiny.llm / "model.safetensors").items():
        row = tensor[len(tensor) // 2].flatten().float()
        expected[name] = {"shape": list(tensor.shape), "values": [row[0].item(), row[-1].item()]}
    assert base_values(open_checkpoint(tiny.llm).tensors) == {"tensors": dict(sorted(expected.items()))}
