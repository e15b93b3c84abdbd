"""Which kernels a run takes, and that they leave the loss, the gradients and other models as they are."""

import copy
import functools
import importlib.util
import os
from types import SimpleNamespace

import pytest
import torch
from transformers.models.llama import modeling_llama

from llava.constants import IGNORE_INDEX
from llava.families import known_families
from llava.model import kernels
from llava.model.kernels import apply_kernels, choose_kernels
from visual_region.layers import LayerSelection
from visual_region.tuning import apply_lora, recompute_layers

FAMILIES = known_families()
CPU, GPU = torch.device("cpu"), torch.device("cuda")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
LIGER = importlib.util.find_spec("liger_kernel") and (torch.cuda.is_available() or INTERPRETED)
LIGER_FAMILIES = ("llava_llama", "llava_mistral", "bunny-llama", "bunny-phi3", "bunny-qwen2")


@pytest.fixture
def machine(monkeypatch):
    """A machine with these packages, and a liger-kernel that knows llama."""

    def make(*packages):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in packages else None)
        monkeypatch.setattr(kernels, "_liger_functions", lambda: {"llama": None})

    return make


@pytest.mark.parametrize(
    ("device", "packages", "family", "chosen", "reason"),
    [
        (GPU, ("liger_kernel",), "llava_llama", "liger", None),
        (GPU, ("liger_kernel",), "bunny-stablelm", "none", "has none for stablelm"),
        (GPU, (), "llava_llama", "none", "not installed; pip install"),
    ],
)
def test_auto_and_liger(machine, device, packages, family, chosen, reason):
    machine(*packages)
    family = FAMILIES[family]
    found = choose_kernels("auto", family, device)
    assert found.name == chosen
    assert found.line.startswith(f"kernels: {chosen}")
    if reason is None:
        assert choose_kernels("liger", family, device).name == "liger"
    else:
        assert reason in found.line
        with pytest.raises(ValueError, match=f"--kernels liger cannot run: .*{reason}.*use none, or auto"):
            choose_kernels("liger", family, device)


def test_on_a_cpu(machine):
    machine("liger_kernel")
    family = FAMILIES["llava_llama"]
    assert choose_kernels("auto", family, CPU) == choose_kernels("cpu", family, CPU)
    assert choose_kernels("auto", family, CPU).line == "kernels: cpu"
    with pytest.raises(ValueError, match=r"--kernels liger cannot run: .*need a GPU"):
        choose_kernels("liger", family, CPU)
    with pytest.raises(ValueError, match="--kernels cpu cannot run: they are for a CPU"):
        choose_kernels("cpu", family, GPU)


def test_a_liger_that_cannot_be_imported(machine, monkeypatch):
    def fail():
        raise ImportError("no triton")

    machine("liger_kernel")
    monkeypatch.setattr(kernels, "_liger_functions", fail)
    assert "cannot be imported: no triton" in choose_kernels("auto", FAMILIES["llava_llama"], GPU).line


@pytest.mark.parametrize(
    ("device", "packages", "compiler", "stage", "reason"),
    [
        (GPU, ("triton",), "", 2, None),
        (GPU, (), "", 0, "triton"),
        (CPU, (), "sh", 0, None),
        (CPU, (), "no-such-compiler", 0, "no-such-compiler is not there"),
        (GPU, ("triton",), "", 3, "ZeRO-3"),
    ],
)
def test_compile(machine, monkeypatch, device, packages, compiler, stage, reason):
    machine(*packages)
    monkeypatch.setenv("CXX", compiler)
    family = FAMILIES["bunny-stablelm"]
    if reason is None:
        assert choose_kernels("compile", family, device, stage).name == "compile"
    else:
        with pytest.raises(ValueError, match=f"--kernels compile cannot run: .*{reason}"):
            choose_kernels("compile", family, device, stage)


def test_none_and_unknown_names():
    family = FAMILIES["llava_llama"]
    assert choose_kernels("none", family, GPU).line == "kernels: none"
    with pytest.raises(ValueError, match="'ligr'; allowed: auto, none, liger, cpu, compile"):
        choose_kernels("ligr", family, GPU)


def language_model(model_type, layers=2):
    """A random model of a family, without a tower, that computes no padding."""
    family = FAMILIES[model_type]
    torch.manual_seed(0)
    config = family.load_config_class()(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        pad_token_id=0,
        use_cache=False,
    )
    model = family.load_model_class()(config).train()
    model.label_only_logits = True
    model.compute_without_padding()
    return model


def batch(*lengths):
    torch.manual_seed(sum(lengths))
    ids = torch.randint(3, 64, (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(~mask, IGNORE_INDEX)}


def learn(model, data, device="cpu", lora=True, recomputed=()):
    """The loss and the gradients of a step, in the first layer by a LoRA or of all weights."""
    if recomputed:
        recompute_layers(model, recomputed, "model.layers")
        model.enable_input_require_grads()
    if lora:
        torch.manual_seed(1)
        model.requires_grad_(False)
        first = LayerSelection.parse("0", len(model.model.layers))
        model = apply_lora(model, first, "model.layers", r=4, lora_alpha=8, lora_dropout=0.0).train()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    model.to(device)
    steps = []
    for values in data:
        model.zero_grad()
        loss = model(**{name: value.to(device) for name, value in values.items()}).loss
        loss.backward()
        steps.append((loss.item(), {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}))
    return steps


def assert_same(found, wanted):
    for (loss, grads), (wanted_loss, wanted_grads) in zip(found, wanted, strict=True):
        assert loss == pytest.approx(wanted_loss, rel=1e-5)
        assert grads.keys() == wanted_grads.keys()
        for name, grad in wanted_grads.items():
            torch.testing.assert_close(grads[name], grad, rtol=1e-4, atol=1e-5 * grad.abs().max().item(), msg=name)


def test_compiled_layers(monkeypatch):
    """Without torch's code generator, which takes minutes here: the captured layers are right, and captured once."""
    captured = []

    def backend(graph, _):
        captured.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", functools.partialmethod(torch.nn.Module.compile, backend=backend))
    data = batch(9, 14), batch(12, 5)
    model = language_model("llava_llama", layers=1)
    plain = copy.deepcopy(model)
    apply_kernels(model, "compile")
    torch._dynamo.reset()
    assert_same(learn(model, data, recomputed=(0,)), learn(plain, data, recomputed=(0,)))
    assert len(captured) == 1


def test_liger_changes_one_model_only(monkeypatch):
    """With a stand-in that replaces what liger-kernel replaces: names in the module, and methods of the model."""
    calls, plain_rotary = [], modeling_llama.apply_rotary_pos_emb

    def rotary(*args, **kwargs):
        calls.append("rotary")
        return plain_rotary(*args, **kwargs)

    def norm(self, states):
        calls.append("norm")
        return type(self).forward(self, states)

    def apply(model, cross_entropy, fused_linear_cross_entropy):
        assert not cross_entropy
        assert not fused_linear_cross_entropy
        modeling_llama.apply_rotary_pos_emb = rotary
        modeling_llama.LlamaRMSNorm = SimpleNamespace
        model.model.norm.forward = norm.__get__(model.model.norm)

    monkeypatch.setattr(kernels, "_liger_functions", lambda: {"llama": apply})
    before, data = dict(vars(modeling_llama)), [batch(9, 14)]
    plain, model = language_model("llava_llama"), language_model("llava_llama")
    apply_kernels(model, "liger")
    assert vars(modeling_llama) == before
    wanted = learn(plain, data)
    assert not calls
    assert_same(learn(model, data), wanted)
    assert calls == ["rotary", "rotary", "norm"]
    assert vars(modeling_llama) == before


@pytest.mark.skipif(not LIGER, reason="needs liger-kernel, and a GPU with TESTS_ON_GPU=1 (or TRITON_INTERPRET=1)")
@pytest.mark.parametrize("recomputed", [(), (1,)])
@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("model_type", LIGER_FAMILIES)
def test_liger_kernels(model_type, lora, recomputed):
    device = GPU if torch.cuda.is_available() else CPU
    assert FAMILIES[model_type].backbone_type in kernels._liger_functions()
    plain, model = language_model(model_type), language_model(model_type)
    apply_kernels(model, "liger")
    assert_same(*(learn(each, [batch(9, 14)], device, lora, recomputed) for each in (model, plain)))
    assert type(model.model.norm).forward is not model.model.norm.forward.__func__
