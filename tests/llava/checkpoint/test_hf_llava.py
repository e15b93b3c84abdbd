"""Transformers' own LLaVA folders through our loader: the independent implementation's logits."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
)
from transformers import LlavaConfig as HFLlavaConfig

from llava.checkpoint.hf_llava import HFLlavaError, our_name
from llava.model.builder import load_pretrained_model

IMAGE = 590
PATCHES = 4
TEXT = {
    "vocab_size": 600,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}
BACKBONES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}


def make(tmp_path, tiny, backbone="llama", **changes):
    """A random LLaVA of transformers with processor and tokenizer; returns it and its folder."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = HFLlavaConfig(
        vision_config=vision,
        text_config=BACKBONES[backbone](**TEXT),
        image_token_index=IMAGE,
        image_seq_length=PATCHES,
        **changes,
    )
    model = LlavaForConditionalGeneration(config).eval()
    folder = tmp_path / "hf"
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((tiny.llm / name).read_bytes())
    return model, folder


def in_layout(folder, layout):
    """The weights under the names of transformers up to 4.51 ("old") or since ("new")."""
    old = {}
    for name, value in load_file(folder / "model.safetensors").items():
        name = our_name(name)
        name = name.replace("model.mm_projector.0", "multi_modal_projector.linear_1")
        name = name.replace("model.mm_projector.2", "multi_modal_projector.linear_2")
        name = name.replace("model.vision_tower.vision_tower.", "vision_tower.")
        name = name.replace("vision_tower.", "vision_tower.vision_model.") if "vision_model" not in name else name
        # Of LLaVA-1.6.
        name = name.replace("model.image_newline", "image_newline")
        if name.startswith(("model.", "lm_head.")):
            name = f"language_model.{name}"
        old[name] = value.clone()
    if layout == "new":
        renamed = {}
        for name, value in old.items():
            if name.startswith("language_model.lm_head."):
                name = name.removeprefix("language_model.")
            elif name.startswith("language_model.model."):
                name = "model.language_model." + name.removeprefix("language_model.model.")
            else:
                name = f"model.{name}"
            renamed[name] = value
        old = renamed
    save_file(old, folder / "model.safetensors", {"format": "pt"})


def both_logits(theirs, ours, rows, images):
    """Logits of both for rows of ids in which -1 stands for an image, without padding."""
    expanded = [[t for token in row for t in ([IMAGE] * PATCHES if token == -1 else [token])] for row in rows]
    with torch.no_grad():
        reference = theirs(input_ids=torch.tensor(expanded), pixel_values=images).logits
        ids = torch.tensor([[-200 if token == -1 else token for token in row] for row in rows])
        return reference, ours(input_ids=ids, images=images).logits


def pixels(n):
    return torch.randn(n, 3, 28, 28, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("layout", ["old", "new"])
def test_both_layouts(tiny, tmp_path, layout):
    theirs, folder = make(tmp_path, tiny)
    in_layout(folder, layout)
    assert layout == ("old" if "language_model.lm_head.weight" in load_file(folder / "model.safetensors") else "new")
    _, ours, processor, _ = load_pretrained_model(str(folder), device="cpu")
    batches = {
        "image": ([[1, 5, -1, 7, 8], [1, -1, 9, 10, 11]], pixels(2)),
        "several images": ([[1, -1, 6, -1, 8], [1, -1, -1, 10, 11]], pixels(4)),
        "text": ([[1, 5, 6, 7, 8]], None),
    }
    for name, (rows, images) in batches.items():
        expected, found = both_logits(theirs, ours, rows, images)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0, msg=name)
    assert processor.crop_size["height"] == 28


@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbones(tiny, tmp_path, backbone):
    theirs, folder = make(tmp_path, tiny, backbone, vision_feature_layer=-1, vision_feature_select_strategy="default")
    _, ours, _, _ = load_pretrained_model(str(folder), device="cpu")
    expected, found = both_logits(theirs, ours, [[1, 5, -1, 7, 8]], pixels(1))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_saved_again_it_is_ours(tiny, tmp_path):
    """Saving what was loaded from there writes our names, not the ones it was read under."""
    _, folder = make(tmp_path, tiny)
    tokenizer, model, _, _ = load_pretrained_model(str(folder), device="cpu")
    model.save_pretrained(tmp_path / "ours")
    tokenizer.save_pretrained(tmp_path / "ours")
    names = set(load_file(tmp_path / "ours" / "model.safetensors"))
    assert "model.mm_projector.0.weight" in names
    assert "model.layers.0.self_attn.q_proj.weight" in names
    assert "model.vision_tower.vision_tower.vision_model.embeddings.class_embedding" in names
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "llava_llama"
    again = load_pretrained_model(str(tmp_path / "ours"), device="cpu")[1]
    ids = torch.tensor([[1, 5, -200, 7]])
    with torch.no_grad():
        torch.testing.assert_close(
            again(input_ids=ids, images=pixels(1)).logits, model(input_ids=ids, images=pixels(1)).logits
        )


def test_another_tower_may_be_given(tiny, tmp_path):
    _, folder = make(tmp_path, tiny)
    ids = torch.tensor([[1, 5, -200, 7]])
    own, other = (
        load_pretrained_model(str(folder), device="cpu", vision_tower=tower)[1](input_ids=ids, images=pixels(1)).logits
        for tower in (None, str(tiny.tower))
    )
    assert not torch.equal(own, other)


def test_what_our_classes_cannot_express_is_told(tiny, tmp_path):
    _, folder = make(tmp_path, tiny)
    values = json.loads((folder / "config.json").read_text())
    values |= {"vision_feature_layer": [-2, -1], "projector_hidden_act": "relu"}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(HFLlavaError, match=r"vision_feature_layer \[-2, -1\].*; projector_hidden_act 'relu'"):
        load_pretrained_model(str(folder), device="cpu")
