"""Bunny's loader and its callers' conventions."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bunny.model.builder import load_pretrained_model
from bunny.util.mm_utils import process_images, tokenizer_image_token
from llava.families import UnknownFamilyError


@pytest.fixture(scope="module")
def bunny(make_bunny):
    return make_bunny("bunny-llama")


def test_upstreams_calling_convention(bunny):
    """Upstream's callers give ids and images, get prompt and answer, and cut the prompt off."""
    tokenizer, model, processor, context = load_pretrained_model(
        str(bunny), None, "anything", "llama3-8b", device_map="cpu", device="cpu"
    )
    assert context == 2048
    assert tokenizer.eos_token == "<|end_of_text|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    ids = tokenizer_image_token("USER: <image>\nHi ASSISTANT:", tokenizer, return_tensors="pt").unsqueeze(0)
    images = process_images([Image.new("RGB", (9, 12))], processor, model.config)
    given = ids.clone()
    output = model.generate(ids, images=images, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert torch.equal(ids, given)
    assert output.shape == (1, ids.shape[1] + 5)
    assert output[0, : ids.shape[1]].tolist() == [0 if token == -200 else token for token in ids[0].tolist()]
    model.generate_returns_prompt = False
    new = model.generate(ids, images=images, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert torch.equal(output[:, ids.shape[1] :], new)


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("phi-2", "values that fit it: llama3-8b"),
        ("phi2", "unknown --model_type 'phi2'; allowed: phi-1.5, phi-2"),
        ("minicpm", "is not supported"),
    ],
)
def test_model_type_is_checked(bunny, model_type, words, monkeypatch):
    monkeypatch.setattr("llava.model.builder.load_checkpoint", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=words):
        load_pretrained_model(str(bunny), model_type=model_type, device="cpu")


def test_checkpoint_of_minicpm_or_llava(bunny, tiny_llava, tmp_path):
    folder = shutil.copytree(bunny, tmp_path / "minicpm")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "bunny-minicpm"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnknownFamilyError, match="MiniCPM runs code that its repository brings along"):
        load_pretrained_model(str(folder), device="cpu")
    with pytest.raises(ValueError, match=r"is a llava_llama, not a Bunny; load it with llava\.model\.builder"):
        load_pretrained_model(str(tiny_llava), device="cpu")


def test_head_of_phi_has_no_bias(make_bunny, backbones):
    """As in upstream's checkpoints; Microsoft's Phi has one."""
    assert "lm_head.bias" in load_file(backbones["bunny-phi"] / "model.safetensors")
    assert not [name for name in load_file(make_bunny("bunny-phi") / "model.safetensors") if "lm_head.bias" in name]


def test_head_of_a_plain_phi_keeps_its_bias(backbones, tmp_path):
    """Of the language model by itself, whose scores are compared with those of other programs."""
    folder = shutil.copytree(backbones["bunny-phi"], tmp_path / "phi")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.bias"] = torch.randn(len(weights["lm_head.bias"]), generator=torch.Generator().manual_seed(0))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    ids = torch.tensor([[1, 5, 7, 9]])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        found = load_pretrained_model(str(folder), device="cpu")[1](input_ids=ids).logits
    torch.testing.assert_close(found, expected)


def test_projector_type_of_old_configs(make_bunny, tmp_path):
    """A Bunny config that does not name its projector means mlp2x_gelu, where LLaVA's means linear."""
    folder = shutil.copytree(make_bunny("bunny-qwen2"), tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    del config["mm_projector_type"]
    (folder / "config.json").write_text(json.dumps(config))
    _, model, _, _ = load_pretrained_model(str(folder), device="cpu")
    assert len(model.model.mm_projector) == 3
