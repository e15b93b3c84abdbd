"""Rows without padding give the padded rows' loss and gradients, in every family."""

import copy
import inspect

import pytest
import torch
from torch.nn import functional

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.families import known_families
from llava.model.builder import load_pretrained_model
from llava.model.row_attention import row_attention
from llava.model.splice import shared_length
from visual_region.layers import LayerSelection
from visual_region.tuning import apply_lora, train_layers

FAMILIES = list(known_families())
MODES = ("lora", "full", "projector")


@pytest.fixture(scope="module")
def batch():
    """Rows of 9, 30, 17 and 1 ids; two images in the second, none in the third."""
    torch.manual_seed(0)
    lengths, images = (9, 30, 17, 1), ((1,), (2, 20), (), ())
    ids = torch.randint(3, 600, (4, 30))
    labels = ids.clone()
    labels[:, ::3] = IGNORE_INDEX
    mask = torch.arange(30) < torch.tensor(lengths).unsqueeze(1)
    for row, places in enumerate(images):
        ids[row, list(places)] = IMAGE_TOKEN_INDEX
        labels[row, list(places)] = IGNORE_INDEX
    labels[~mask] = IGNORE_INDEX
    # A label at a row's first id is never predicted.
    labels[2, 0] = 5
    return {"input_ids": ids, "labels": labels, "attention_mask": mask, "images": torch.randn(3, 3, 28, 28)}


def result(model, batch, mode, checkpointing=False):
    """The loss, the labelled logits and the gradients of a copy of the model."""
    model, wrapped = copy.deepcopy(model), None
    model.requires_grad_(False)
    layers = LayerSelection.parse("0,2", model.config.num_hidden_layers)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    if mode == "lora":
        torch.manual_seed(1)
        wrapped = apply_lora(model, layers, "model.layers", r=4, lora_alpha=8, lora_dropout=0.0)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    elif mode == "full":
        train_layers(model, layers, "model.layers")
    model.get_model().mm_projector.requires_grad_(True)
    output = (wrapped or model).train()(**batch)
    output.loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return output, grads


def assert_same(found, wanted):
    assert found[0].loss.item() == pytest.approx(wanted[0].loss.item(), rel=1e-5)
    assert found[1].keys() == wanted[1].keys()
    for name, grad in wanted[1].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-4, atol=1e-5 * grad.abs().max().item(), msg=name)


@pytest.fixture(scope="module")
def load(make_bunny):
    loaded = {}

    def of(family):
        if family not in loaded:
            loaded[family] = load_pretrained_model(str(make_bunny(family)), device="cpu")[1]
        return copy.deepcopy(loaded[family])

    return of


@pytest.fixture(scope="module")
def alike(batch):
    """The batch without its row of one id; all rows begin with the same five ids. Images start behind them."""
    few = {name: value[:3].clone() if name != "images" else value for name, value in batch.items()}
    few["input_ids"][:, :5] = torch.arange(10, 15)
    few["labels"][:, :7] = IGNORE_INDEX
    few["input_ids"][0, 6] = few["input_ids"][1, 5] = IMAGE_TOKEN_INDEX
    return few


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_beginning_changes_nothing(load, alike, family, mode):
    model, counted = load(family), []
    model.label_only_logits = model.keep_label_logits = True
    wanted = result(model, alike, mode)
    model.compute_without_padding()
    model.model.layers[0].register_forward_pre_hook(lambda module, args: counted.append(args[0].shape[1]))
    found = result(model, alike, mode, checkpointing=mode == "full")
    assert_same(found, wanted)
    torch.testing.assert_close(found[0].logits, wanted[0].logits, rtol=1e-4, atol=1e-4)
    model.share_prefix = False
    assert_same(result(model, alike, mode), wanted)
    assert counted[-1] - counted[0] == 2 * 5


def test_a_shared_beginning_with_a_window(load, alike):
    model = load("llava_mistral")
    model.config.sliding_window = 7
    wanted = result(model, alike, "lora")
    model.compute_without_padding()
    assert_same(result(model, alike, "lora"), wanted)


@pytest.mark.parametrize(
    ("rows", "labelled", "shared"),
    [
        (([1, 2, 3, 4], [1, 2, 3, 5, 6]), (None, None), 3),
        (([1, 2, 3], [1, 2, 3, 5]), (None, None), 2),
        (([1, 2, 3, 4], [1, 2, 3, 5]), (None, 2), 1),
        (([1, 2, 3, 4], [1, 2, 3, 5]), (0, 1), 0),
        (([1, IMAGE_TOKEN_INDEX, 3, 4], [1, IMAGE_TOKEN_INDEX, 3, 5]), (None, None), 1),
        (([1, 2], [3, 4]), (None, None), 0),
        (([1], [1, 2]), (None, None), 0),
        (([], [1, 2]), (None, None), 0),
    ],
)
def test_how_much_rows_share(rows, labelled, shared):
    """At least one position is a row's own, and the position before a row's first label is its own too."""
    ids = [torch.tensor(row, dtype=torch.long) for row in rows]
    labels = [torch.full_like(row, IGNORE_INDEX) for row in ids]
    for row, place in zip(labels, labelled, strict=True):
        if place is not None:
            row[place] = 7
    assert shared_length(ids, labels) == shared


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_same_loss_and_gradients(load, batch, family, mode):
    model = load(family)
    model.label_only_logits = model.keep_label_logits = True
    wanted = result(model, batch, mode)
    model.compute_without_padding()
    found = result(model, batch, mode)
    assert_same(found, wanted)
    torch.testing.assert_close(found[0].logits, wanted[0].logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("label_only", [True, False])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_with_checkpointing_and_whole_logits(load, batch, label_only, checkpointing):
    model = load("llava_llama")
    model.label_only_logits = label_only
    wanted = result(model, batch, "lora")
    model.compute_without_padding()
    assert_same(result(model, batch, "lora", checkpointing), wanted)


@pytest.mark.parametrize("family", ["llava_mistral", "bunny-phi3", "bunny-qwen2"])
def test_sliding_window(load, batch, family):
    model = load(family)
    model.config.sliding_window = 7
    if family == "bunny-qwen2":
        model.model.has_sliding_layers = True
        model.config.layer_types = ["sliding_attention"] * model.config.num_hidden_layers
        for layer in model.model.layers:
            layer.self_attn.sliding_window, layer.self_attn.layer_type = 7, "sliding_attention"
    wanted = result(model, batch, "lora")
    no_window = load(family)
    assert result(no_window, batch, "lora")[0].loss.item() != pytest.approx(wanted[0].loss.item(), rel=1e-4)
    model.compute_without_padding()
    assert_same(result(model, batch, "lora"), wanted)


def test_text_only_without_images(load, batch):
    text = {"input_ids": batch["input_ids"][2:], "labels": batch["labels"][2:], "attention_mask": None}
    text["attention_mask"] = batch["attention_mask"][2:]
    model = load("llava_llama")
    wanted = result(model, text, "lora")
    model.compute_without_padding()
    assert_same(result(model, text, "lora"), wanted)


def test_features_instead_of_pixels(load, batch):
    model = load("llava_llama")
    features = torch.randn(3, model.get_vision_tower().num_patches, model.config.mm_hidden_size)
    cached = {name: value for name, value in batch.items() if name != "images"} | {"image_features": features}
    wanted = result(model, cached, "lora")
    model.compute_without_padding()
    assert_same(result(model, cached, "lora"), wanted)


def test_without_labels_nothing_changes(load, batch):
    """The same model still answers: padded batches, and generation with a cache."""
    model = load("llava_llama").eval()
    asked = {name: value for name, value in batch.items() if name != "labels"}
    prompt = {name: value[:3] if name != "images" else value for name, value in asked.items()}
    with torch.no_grad():
        wanted, text = model(**asked).logits, model.generate(**prompt, max_new_tokens=6, do_sample=False)
        model.compute_without_padding()
        found = model(**asked).logits
        mask = model.prepare_inputs_labels_for_multimodal(
            asked["input_ids"], None, asked["attention_mask"], None, None, asked["images"]
        )[2]
        torch.testing.assert_close(found[mask], wanted[mask], rtol=1e-4, atol=1e-4)
        assert torch.equal(model.generate(**prompt, max_new_tokens=6, do_sample=False), text)
        alone = {"inputs": prompt["input_ids"][:1, :9], "images": prompt["images"][:1]}
        first = text[:1, : (text[0] != 0).sum()]
        assert torch.equal(model.generate(**alone, max_new_tokens=6, do_sample=False)[:, : first.shape[1]], first)


def test_the_tower_keeps_its_attention(load):
    model = load("llava_llama")
    model.get_vision_tower().load_model(device_map="cpu")
    pixels = torch.randn(1, 3, 28, 28)
    before = model.get_vision_tower()(pixels)
    model.compute_without_padding()
    torch.testing.assert_close(model.get_vision_tower()(pixels), before, rtol=0, atol=0)


def test_one_row_is_causal_attention():
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 4, 11, 8), torch.randn(1, 2, 11, 8), torch.randn(1, 2, 11, 8)
    scores = query @ key.repeat_interleave(2, 1).transpose(2, 3) * 0.3
    scores = scores.masked_fill(torch.ones(11, 11).triu(1).bool(), float("-inf"))
    wanted = (functional.softmax(scores, -1) @ value.repeat_interleave(2, 1)).transpose(1, 2)
    for lengths in (None, [11]):
        found, _ = row_attention(None, query, key, value, None, scaling=0.3, row_lengths=lengths)
        torch.testing.assert_close(found, wanted)
    found, _ = row_attention(None, query, key, value, None, scaling=0.3, row_lengths=[4, 7])
    torch.testing.assert_close(found[:, :4], wanted[:, :4])


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("grouped", [True, False], ids=["2.13", "2.11"])
def test_torch_kernel_gets_what_its_release_takes(monkeypatch, grouped, window):
    """The kernel itself runs on a GPU only; in its place, attention by definition. torch 2.11 has no `enable_gqa`."""
    lengths, heads = [5, 9], (4, 2)

    def attend(query, key, value, ends, _, *, scale, window_size, enable_gqa=False):
        assert enable_gqa or query.shape[1] == key.shape[1]
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        row = torch.bucketize(torch.arange(len(query)), ends[1:], right=True)
        before = torch.arange(len(query)).unsqueeze(1) - torch.arange(len(query))
        seen = (row.unsqueeze(1) == row) & (before >= -window_size[1])
        seen &= (window_size[0] < 0) | (before <= window_size[0])
        scores = torch.einsum("qhd,khd->hqk", query, key) * scale
        return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), value)

    def newer(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False):
        assert (max_q, max_k) == (9, 9)
        return attend(q, k, v, cu_seq_q, cu_seq_k, scale=scale, window_size=window_size, enable_gqa=enable_gqa)

    def older(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
        return attend(q, k, v, cu_seq_q, cu_seq_k, scale=scale, window_size=window_size)

    torch.manual_seed(0)
    states = [torch.randn(1, count, sum(lengths), 8) for count in (heads[0], heads[1], heads[1])]
    arguments = {"scaling": 0.3, "sliding_window": window, "row_lengths": lengths}
    wanted = row_attention(None, *states, None, **arguments)[0]
    kernel = newer if grouped else older
    monkeypatch.setattr("llava.model.row_attention.varlen_attn", kernel)
    monkeypatch.setattr("llava.model.row_attention._VARLEN_ARGUMENTS", frozenset(inspect.signature(kernel).parameters))
    monkeypatch.setattr("llava.model.row_attention._has_varlen", lambda query: True)
    found = row_attention(None, *states, None, **arguments)[0]
    torch.testing.assert_close(found, wanted)
