"""Decoder layers with fewer passes over memory give the loss and gradients of transformers' own, in every family."""

import copy
import json

import pytest
import torch
from torch import nn

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.families import known_families
from llava.model import kernels
from llava.model.builder import load_pretrained_model
from llava.model.cpu_kernels import apply_cpu_kernels
from llava.train.train import train
from visual_region.layers import LayerSelection
from visual_region.tuning import apply_lora, train_layers

CHANGED = {"bunny-phi": ["rotary embedding"], "bunny-stablelm": ["MLPs", "rotary embedding"]}
"""What is changed in families whose norm is torch's LayerNorm; all of it in the others."""


@pytest.fixture(scope="module", params=list(known_families()))
def loaded(request, make_bunny):
    return request.param, load_pretrained_model(str(make_bunny(request.param)), device="cpu")[1]


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(0)
    ids = torch.randint(3, 300, (2, 24))
    ids[0, 4] = ids[1, 2] = IMAGE_TOKEN_INDEX
    labels = ids.masked_fill(ids == IMAGE_TOKEN_INDEX, IGNORE_INDEX)
    return {"input_ids": ids, "labels": labels, "images": torch.randn(2, 3, 28, 28)}


def result(model, batch, mode, kernels, dtype=torch.float32, checkpointing=False):
    """The loss and the gradients of a copy of the model, and what was changed."""
    model = copy.deepcopy(model).to(dtype).requires_grad_(False)
    layers, whole = LayerSelection.parse("0,2", model.config.num_hidden_layers), model
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    if mode == "full":
        train_layers(model, layers, "model.layers")
    else:
        torch.manual_seed(1)
        whole = apply_lora(
            model, layers, "model.layers", r=4, lora_alpha=8, lora_dropout=0.0 if mode == "lora" else 0.3
        )
        for name, parameter in whole.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    model.get_model().mm_projector.requires_grad_(True)
    changed = apply_cpu_kernels(model) if kernels else ()
    torch.manual_seed(2)
    loss = whole.train()(**{name: value.to(dtype) if name == "images" else value for name, value in batch.items()}).loss
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, changed


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("mode", ["lora", "lora with dropout", "full"])
def test_the_loss_and_the_gradients_stay(loaded, batch, mode, checkpointing):
    family, model = loaded
    wanted = result(model, batch, mode, False)
    found = result(model, batch, mode, True, checkpointing=checkpointing)
    parts = CHANGED.get(family, ["norms", "MLPs", "rotary embedding"]) + ["LoRA"] * ("lora" in mode)
    assert sorted(found[2]) == sorted(parts)
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert found[1].keys() == wanted[1].keys()
    for name, grad in wanted[1].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-4, atol=1e-5 * grad.abs().max().item(), msg=name)


@pytest.mark.parametrize("mode", ["lora with dropout", "full"])
def test_bfloat16_stays_within_its_rounding(loaded, batch, mode):
    """The gradients are as near to those of float32 as transformers' own."""
    model = loaded[1]
    exact, plain, found = (
        result(model, batch, mode, kernels, dtype)
        for kernels, dtype in ((False, torch.float32), (False, torch.bfloat16), (True, torch.bfloat16))
    )
    assert found[0] == pytest.approx(plain[0], rel=1e-2)

    def distance(grads):
        parts = [(grads[name].float() - grad).flatten() for name, grad in exact[1].items()]
        return torch.cat(parts).norm().item()

    assert distance(found[1]) < 1.5 * distance(plain[1])


def test_other_models_stay_as_they_are(make_bunny):
    model = load_pretrained_model(str(make_bunny("llava_llama")), device="cpu")[1]
    other = copy.deepcopy(model)
    apply_cpu_kernels(model)
    assert not [module for module in other.modules() if "forward" in vars(module)]
    layer = copy.deepcopy(model).model.layers[0]
    assert layer.input_layernorm.forward.args == (layer.input_layernorm,), "a copy computes with its own weights"


def test_an_adapter_that_is_off_or_merged(make_bunny, batch):
    model = load_pretrained_model(str(make_bunny("llava_llama")), device="cpu")[1]
    wrapped = apply_lora(
        model, LayerSelection.parse("0", 4), "model.layers", r=4, lora_alpha=8, lora_dropout=0.0
    ).eval()
    nn.init.ones_(model.model.layers[0].mlp.up_proj.lora_B["default"].weight)
    with torch.no_grad():
        with wrapped.disable_adapter():
            off = wrapped(**batch).loss
        tuned = wrapped(**batch).loss
        apply_cpu_kernels(model)
        with wrapped.disable_adapter():
            torch.testing.assert_close(wrapped(**batch).loss, off)
        torch.testing.assert_close(wrapped(**batch).loss, tuned)
        wrapped.merge_adapter()
        torch.testing.assert_close(wrapped(**batch).loss, tuned)
    assert not torch.equal(off, tuned)


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 1e-2)])
def test_in_the_trainer(train_flags, tmp_path, capsys, monkeypatch, bf16, tolerance):
    """--kernels auto takes them on a CPU, after LoRA was added, and the losses stay.

    With --bf16 True weights that train are float32, and the forward runs under autocast.
    """
    changed, losses = [], []
    monkeypatch.setattr("llava.devices._cpuinfo", lambda: "")
    monkeypatch.setattr(kernels, "apply_cpu_kernels", lambda model: changed.extend(apply_cpu_kernels(model)))
    for choice in ("none", "auto"):
        lora = {"lora_enable": True, "lora_dropout": 0.3, "tune_layers": "0,3", "learning_rate": 1e-2, "bf16": bf16}
        train(argv=train_flags(tmp_path / choice, **lora, kernels=choice))
        history = json.loads((tmp_path / choice / "trainer_state.json").read_text())["log_history"]
        losses.append([entry["loss"] for entry in history if "loss" in entry])
    assert "kernels: none\n" in (said := capsys.readouterr().out)
    assert "kernels: cpu\n" in said
    assert ("note: bfloat16 is slow here; use float32: BF16=False" in said) == bf16
    assert sorted(changed) == ["LoRA", "MLPs", "norms", "rotary embedding"]
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
