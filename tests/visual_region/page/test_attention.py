"""The maps are transformers' own eager attention, laid over what the tower sees."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Phi3Config

from llava.conversation import get_template
from llava.model.builder import load_pretrained_model
from llava.serve.chat import ChatSession
from visual_region.importance.sweep import sweep
from visual_region.importance.tokens import PROMPT, TokenBatch
from visual_region.page.attention import AttentionMapError, AttentionMaps, LastTokenRecorder, attention_maps

QUESTION = "Where is the red line?"


@pytest.fixture(scope="module")
def parts(tiny_llava):
    return load_pretrained_model(str(tiny_llava), device="cpu")[:3]


def session_of(parts, image):
    tokenizer, model, processor = parts
    return ChatSession(model, tokenizer, processor, get_template("v1"), [image])


def eager(model, **inputs):
    """Attention of the last position, `(layers, length)`: float64."""
    before = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    with torch.no_grad():
        maps = model.model(**inputs, use_cache=False, output_attentions=True).attentions
    model.config._attn_implementation = before
    return torch.stack([one[0, :, -1].double().mean(0) for one in maps])


def test_maps_are_those_of_eager_attention(parts, tiny):
    _, model, processor = parts
    session = session_of(parts, Image.open(tiny.images / "3.png"))
    found = attention_maps(session, processor, "model.layers", QUESTION, [0, 1, 2, 4, 5, 7])
    ids, pixels = session._encoded(QUESTION)[1], session.pixels
    *_, embeds, _ = model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, pixels)
    start = (ids[0] == -200).nonzero().item()
    wanted = eager(model, inputs_embeds=embeds)[:, start : start + 4].reshape(-1, 2, 2)
    assert np.abs(found.shares - wanted.numpy()).max() < 1e-6
    assert found.picture.size == (28, 28)
    assert found.original == (0, 1, 2, 4, 5, 7)
    # The session still has its question to come, and the model its own attention.
    assert session.prompt(QUESTION).count("<image>") == 1
    assert model.config._attn_implementation == "sdpa"


SMALL = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    "config", [LlamaConfig(**SMALL), MistralConfig(**SMALL, sliding_window=5), Phi3Config(**SMALL)]
)
def test_other_families_and_a_sliding_window(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.randint(1, 50, (1, 12))
    batch = TokenBatch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.full_like(ids, PROMPT), (0,))
    ((_, numbers),) = sweep(model, [batch], [LastTokenRecorder()], "model.layers")
    found, wanted = numbers["last-token"][0], eager(model, **batch.inputs)
    assert (found - wanted).abs().max() < 1e-6
    assert torch.allclose(found.sum(1), torch.ones(3, dtype=torch.float64))


def test_what_is_seen_is_the_padded_picture(parts, tiny):
    red = Image.new("RGB", (40, 20), "red")
    maps = attention_maps(session_of(parts, red), parts[2], "model.layers", QUESTION, list(range(6)))
    mean = [int(255 * value) for value in parts[2].image_mean]
    assert np.abs(np.asarray(maps.picture)[14, 14] - np.array([255, 0, 0])).max() <= 2
    assert np.abs(np.asarray(maps.picture)[1, 14] - np.array(mean)).max() <= 2


def test_a_layer_that_is_gone_is_named():
    shares = np.zeros((2, 2, 2))
    shares[:, 1, 0] = 0.25
    maps = AttentionMaps(Image.new("RGB", (8, 8), "white"), shares, (0, 2))
    picture, line = maps.over(2)
    assert line.startswith("Layer 2, now layer 1: 25.0% of the attention is on the image")
    pixels = np.asarray(picture).astype(int).sum(-1)
    assert pixels[-20, 20] > pixels[20, 20]
    assert pixels[-20, 20] > pixels[-20, -20]
    assert maps.over(1)[1] == "Layer 1 is not in this model."
    # A layer that does not look at the picture at all is drawn too.
    assert "0.0%" in AttentionMaps(maps.picture, np.zeros((1, 2, 2)), (0,)).over(0)[1]


def test_tokens_without_a_grid(parts, tiny, monkeypatch):
    session = session_of(parts, Image.open(tiny.images / "3.png"))
    decoder = session.model.get_model()
    project = decoder.project_features
    monkeypatch.setattr(decoder, "project_features", lambda features: project(features)[:, :3])
    with pytest.raises(AttentionMapError, match="3 tokens are not one square grid"):
        attention_maps(session, parts[2], "model.layers", QUESTION, list(range(6)))
    session.pixels = session.pixels.unsqueeze(0)
    with pytest.raises(AttentionMapError, match="in several parts"):
        attention_maps(session, parts[2], "model.layers", QUESTION, list(range(6)))
