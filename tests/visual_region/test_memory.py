"""Which layers are recomputed so that a step fits, and that recomputing them changes nothing."""

import dataclasses

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM, StableLmConfig, StableLmForCausalLM

from visual_region.activations import ActivationMeter
from visual_region.cost import ModelShape, Recipe
from visual_region.layers import LayerSelection
from visual_region.memory import USABLE, StepMemory
from visual_region.tuning import apply_lora, recompute_layers, train_layers

PATH, DEPTH = "model.layers", 6
CONFIG = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=DEPTH, num_attention_heads=4
)


def step(spec="0,3", mode="lora", **changes):
    selection = LayerSelection.parse(spec, DEPTH) if spec else None
    with torch.device("meta"):
        shape = ModelShape.of(LlamaForCausalLM(CONFIG), PATH)
    meter = ActivationMeter(LlamaForCausalLM, CONFIG, PATH, torch.float32, 0.05)
    return StepMemory(shape, meter, selection, Recipe(mode, 200, 0, 20, lora_r=4), rows=8, **changes)


@pytest.mark.parametrize(("spec", "mode"), [("0,3", "lora"), ("all", "lora"), ("2,4", "full"), ("4,5", "lora")])
def test_the_fewest_layers_that_make_it_fit(spec, mode):
    memory = step(spec, mode)
    order = memory.recomputable()
    assert set(order) == set(range(min(memory.selection), DEPTH))
    takes = [memory.needed(order[:k]) for k in range(len(order) + 1)]
    assert takes[-1] < takes[0]
    for free in [*(int(value / USABLE) + 1 for value in takes), 1]:
        fits = [k for k, value in enumerate(takes) if value <= USABLE * free]
        layers, needed = memory.fewest_recomputed(free)
        assert layers == tuple(sorted(order[: min(fits, default=len(order))]))
        assert needed == memory.needed(layers)


def test_adapted_layers_come_first():
    """They keep more, and are recomputed at nearly the same price."""
    assert step("0,3").recomputable() == [3, 0, 5, 4, 2, 1]


def test_sharding_and_quantised_weights_take_less():
    alone = step(mode="full", spec="all")
    # ZeRO-3 shards what is more than a billion parameters.
    alone = dataclasses.replace(alone, shape=dataclasses.replace(alone.shape, language_model=8 * 10**9))
    sizes = [dataclasses.replace(alone, zero_stage=stage, ranks=4).needed() for stage in range(4)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4
    # DDP's buckets are a second copy of the gradients.
    assert sizes[0] == alone.needed() + 4 * 8 * 10**9
    sixteen, eight, four = (step(weight_bits=bits).needed() for bits in (16, 8, 4))
    assert sixteen - eight > eight - four > 0


WIDTH, INNER = 32, 64
# By token: layer_norm's input is a copy of 4 bytes instead of one of 2. NewGELU keeps pow's input, the tanh and its sum
# with 1 in 4 bytes instead of 2.
NORM, GELU = 2 * WIDTH, 6 * INNER


@pytest.mark.parametrize("kind", ["frozen", "lora", "full"])
@pytest.mark.parametrize(
    ("config_class", "build", "norms", "more"),
    [
        (PhiConfig, PhiForCausalLM, 1, NORM + GELU),
        (StableLmConfig, StableLmForCausalLM, 2, 2 * NORM),
        (LlamaConfig, LlamaForCausalLM, 0, 0),
    ],
)
def test_float32_copies_of_autocast_on_cuda(config_class, build, norms, more, kind):
    """CUDA's autocast computes layer_norm and pow in float32; RMSNorm asks for float32 by itself."""
    config = config_class(vocab_size=64, hidden_size=WIDTH, intermediate_size=INNER, num_attention_heads=4)
    meter, rows = ActivationMeter(build, config, PATH, torch.bfloat16, 0.05), 3
    plain = Recipe("lora", 200, 0, 20, lora_r=4)
    layers = [meter.layer(kind, dataclasses.replace(plain, cuda_autocast=c), rows)[0] for c in (False, True)]
    if norms and kind == "full":
        # Linear modules that read a norm together keep a copy in 16 bits each: four in Phi, three and two in StableLM.
        more += 3 * 2 * WIDTH
    # A norm's weight and bias are copied too.
    assert layers[1] - layers[0] == rows * plain.length * more + norms * 2 * WIDTH * 4


def test_deepspeed_has_no_autocast():
    def needed(autocast, stage):
        meter = ActivationMeter(PhiForCausalLM, config, PATH, torch.bfloat16, 0.0)
        recipe = dataclasses.replace(plain.recipe, cuda_autocast=autocast)
        return dataclasses.replace(plain, meter=meter, recipe=recipe, zero_stage=stage).needed()

    plain, config = step(), PhiConfig(vocab_size=64, hidden_size=WIDTH, intermediate_size=INNER, num_attention_heads=4)
    assert needed(True, 0) > needed(False, 0)
    assert needed(True, 2) == needed(False, 2)


@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize("again", [(), (1,), (0, 3, 5), tuple(range(DEPTH))])
def test_recomputed_layers_change_nothing(mode, again):
    def gradients(layers):
        torch.manual_seed(0)
        model = wrapped = LlamaForCausalLM(CONFIG)
        model.config.use_cache = False
        model.requires_grad_(False)
        selection = LayerSelection.parse("0,3", DEPTH)
        if mode == "lora":
            wrapped = apply_lora(model, selection, PATH, r=4, lora_alpha=8, lora_dropout=0.1)
        else:
            train_layers(model, selection, PATH)
        recomputed = []
        for i, layer in enumerate(model.model.layers):
            layer.mlp.register_forward_pre_hook(lambda *_, i=i: recomputed.append(i))
        recompute_layers(model, layers, PATH)
        wrapped.train()
        ids = torch.arange(20).reshape(2, 10)
        loss = wrapped(input_ids=ids, labels=ids).loss
        forward = len(recomputed)
        loss.backward()
        found = {name: p.grad for name, p in wrapped.named_parameters() if p.grad is not None}
        return loss, found, sorted(recomputed[forward:])

    loss, wanted, nothing = gradients(())
    assert nothing == []
    found_loss, found, ran_again = gradients(again)
    assert ran_again == list(again)
    assert torch.equal(found_loss, loss)
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        assert torch.equal(found[name], grad), name
