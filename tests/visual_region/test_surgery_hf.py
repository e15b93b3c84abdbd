"""Transformers' own LLaVA folders, pruned and reverted in their own format."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from llava.model.builder import load_pretrained_model
from visual_region.surgery import remove_layers

TEXT = LlamaConfig(
    vocab_size=600,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.2,
)


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    torch.manual_seed(2)
    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = LlavaConfig(vision_config=vision, text_config=TEXT, image_token_index=590, image_seq_length=4)
    root = tmp_path_factory.mktemp("models") / "hf"
    LlavaForConditionalGeneration(config).save_pretrained(root)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(root)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        (root / name).write_bytes((tiny.llm / name).read_bytes())
    return root


def test_pruned_folders_load_in_both_houses(command, logits, folder, tmp_path):
    output, twice = tmp_path / "out", tmp_path / "twice"
    command("prune", "--model-path", folder, "--layers", "1", "--output", output)
    expected = remove_layers(load_pretrained_model(str(folder), device="cpu")[1], (1,), "model.layers")
    assert torch.equal(logits(output), logits(expected))
    theirs = LlavaForConditionalGeneration.from_pretrained(output).eval()
    ids = torch.tensor([[1, 5, 590, 590, 590, 590, 7, 9]])
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(input_ids=ids, pixel_values=pixels).logits, logits(output))
    command("prune", "--model-path", output, "--layers", "1", "--output", twice)
    config = json.loads((twice / "config.json").read_text())
    assert config["visual_region"]["kept_layers"] == [0, 3]
    assert config["text_config"]["num_hidden_layers"] == 2


def test_reverted(command, folder, tmp_path):
    torch.manual_seed(9)
    LlamaForCausalLM(TEXT).save_pretrained(tmp_path / "backbone")
    output = tmp_path / "out"
    flags = ("--backbone", tmp_path / "backbone", "--layers", "1-2")
    command("revert", "--model-path", folder, *flags, "--output", output)
    state = load_pretrained_model(str(output), device="cpu")[1].state_dict()
    before = load_pretrained_model(str(folder), device="cpu")[1].state_dict()
    for name, value in load_file(tmp_path / "backbone" / "model.safetensors").items():
        source = value if name.startswith(("model.layers.1.", "model.layers.2.")) else before[name]
        assert torch.equal(state[name], source), name
    assert json.loads((output / "config.json").read_text())["visual_region"]["reverted_layers"] == [1, 2]


def test_the_record_survives_export(command, logits, tiny_llava, tmp_path):
    pruned, exported, again, at_once = (tmp_path / n for n in ("pruned", "exported", "again", "at-once"))
    command("prune", "--model-path", tiny_llava, "--layers", "1", "--output", pruned)
    command("export", "--model-path", pruned, "--conv-mode", "v1", "--output", exported)
    command("prune", "--model-path", exported, "--layers", "3", "--output", again)
    command("prune", "--model-path", tiny_llava, "--layers", "1,4", "--output", at_once)
    first, second = (json.loads((f / "config.json").read_text())["visual_region"] for f in (again, at_once))
    assert first == second
    torch.testing.assert_close(logits(again)[..., :600], logits(at_once))  # export adds an image token


def test_healed(command, logits, tiny, folder, tmp_path):
    pruned, healed, reverted = tmp_path / "pruned", tmp_path / "healed", tmp_path / "reverted"
    command("prune", "--model-path", folder, "--layers", "1", "--output", pruned)
    data = ("--data-path", tiny.data, "--image-folder", tiny.images)
    short = ("--steps", "2", "--batch-size", "2", "--lora-r", "4", "--dtype", "fp32")
    command("heal", "--model-path", pruned, "--teacher", folder, *data, *short, "--output", healed)
    record = json.loads((healed / "config.json").read_text())["visual_region"]
    assert record["healed"]["layers"] == [0, 2, 3]
    assert load_pretrained_model(str(healed), device="cpu")[1].config.num_hidden_layers == 3
    command("export", "--model-path", healed, "--output", tmp_path / "stock")
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path / "stock")
    assert theirs.config.text_config.num_hidden_layers == 3
    # Without the LoRA it is the pruned model again, in our format.
    command("revert", "--model-path", healed, "--layers", "all", "--output", reverted)
    assert torch.equal(logits(reverted), logits(pruned))
    names = load_file(reverted / "model.safetensors")
    assert not [name for name in names if "multi_modal_projector" in name or "language_model" in name]
