"""Prompts read together, without padding and with shared beginnings, are what each prompt is by itself."""

import pytest
import torch

from llava.eval.answering.decoding import decode, read_prompts
from llava.eval.answering.forest import Forest, Prompt
from llava.families import known_families
from llava.model.builder import load_pretrained_model
from llava.model.splice import splice_row

SHOTS = tuple(range(40, 60))
PROMPTS = [
    # Two questions about an image that begin alike, a third one, and another image.
    Prompt((1, 5, -200, 9, 30, 31, 32), ("a",), 4),
    Prompt((1, 5, -200, 9, 30, 33), ("a",), 4),
    Prompt((1, 5, -200, 9, 34), ("a",), 4),
    Prompt((1, 5, -200, 9, 30, 31, 32), ("b",)),
    # Images after what is shared: two equal ones and another.
    Prompt((*SHOTS, -200, 7, 8), ("a",), 20),
    Prompt((*SHOTS, -200, 7), ("b",), 20),
    Prompt((*SHOTS, -200, 8), ("a",), 20),
    # The beginning of another one, text alone, and a single id.
    Prompt((*SHOTS, 11), (), 20),
    Prompt((*SHOTS, 11, 12), (), 20),
    Prompt((1,)),
]
FAMILIES = list(known_families())


@pytest.fixture(scope="module")
def blocks():
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(6, 32, generator=generator) for key in ("a", "b")}


def embeds_of(model, prompt, blocks):
    ids = torch.tensor(prompt.ids)
    words = model.get_input_embeddings()(ids.clamp(min=0))
    return splice_row(ids, ids, [blocks[key] for key in prompt.images], words)[0][None]


@torch.no_grad()
def alone(model, prompt, blocks, new):
    """Logits of the prompt's last position, and greedy tokens; everything is computed again for each token."""
    embeds, tokens, first = embeds_of(model, prompt, blocks), [], None
    for _ in range(new):
        logits = model(inputs_embeds=embeds, use_cache=False).logits[0, -1]
        first = logits if first is None else first
        tokens.append(int(logits.argmax()))
        embeds = torch.cat([embeds, model.get_input_embeddings()(logits.argmax()[None, None])], dim=1)
    return first, tokens


def check(model, blocks):
    model.eval()
    blocks = {key: block[:, : model.config.hidden_size] for key, block in blocks.items()}
    wanted = [alone(model, prompt, blocks, 4) for prompt in PROMPTS]
    before = model.config._attn_implementation
    with torch.inference_mode():
        found = read_prompts(model, PROMPTS, blocks).logits[:, -1]
    torch.testing.assert_close(found, torch.stack([logits for logits, _ in wanted]), rtol=1e-4, atol=1e-4)
    assert decode(model, PROMPTS, blocks, 4, ()) == [tokens for _, tokens in wanted]
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(make_bunny, blocks, family):
    check(load_pretrained_model(str(make_bunny(family)), device="cpu")[1], blocks)


def test_sliding_window(make_bunny, blocks):
    model = load_pretrained_model(str(make_bunny("llava_mistral")), device="cpu")[1]
    whole = alone(model, PROMPTS[4], blocks, 1)[0]
    model.config.sliding_window = 7
    assert not torch.allclose(alone(model, PROMPTS[4], blocks, 1)[0], whole, atol=1e-3)
    check(model, blocks)


def test_small_groups(tiny_llava, blocks, monkeypatch):
    """Suffixes of one prefix that do not fit into one group."""
    monkeypatch.setattr("llava.eval.answering.forest._LARGEST_GROUP", 4)
    check(load_pretrained_model(str(tiny_llava), device="cpu")[1], blocks)


def test_what_is_alike_is_one_position():
    forest = Forest(PROMPTS[:4], {"a": 6, "b": 6})
    # The first three: bos, 5, image, 9, then 30, 31 32 or 33, or 34.
    assert len(forest.ids) == (9 + 5) + 12
    assert forest.paths[0][:10] == forest.paths[1][:10]
    assert [forest.depths[i] for i in forest.paths[1]] == list(range(11))
    assert [key for _, key in forest.blocks] == ["a", "b"]
    equal = Forest([PROMPTS[4], PROMPTS[6]], {"a": 6})
    assert len(equal.ids) == 20 + 6 + 3, "an image after the prefix is read once too"


def test_logits_before_the_end_of_a_shared_beginning(tiny_llava):
    """The last logits of a prompt may be at positions that it shares with others."""
    model = load_pretrained_model(str(tiny_llava), device="cpu")[1]
    prompts = [Prompt((1, 5, 6, 7, 8), shared=4), Prompt((1, 5, 6, 7, 9, 10), shared=4)]
    with torch.inference_mode():
        logits = read_prompts(model, prompts, {}, 3).logits
        for found, prompt in zip(logits, prompts, strict=True):
            torch.testing.assert_close(found, model(torch.tensor([prompt.ids])).logits[0, -3:], rtol=1e-4, atol=1e-4)
