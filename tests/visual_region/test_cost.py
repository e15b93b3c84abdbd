"""Prices against torch's FLOP counter, against files and memory of real runs, and against figures worked out before."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from llava.families import FAMILIES
from llava.model import label_loss
from llava.model.multimodal_projector.builder import build_vision_projector
from visual_region.activations import ActivationMeter, saved_bytes
from visual_region.cost import CostError, ModelShape, Recipe, bytes_needed, flops_per_sample, trained_parameters
from visual_region.layers import LayerSelection
from visual_region.tuning import apply_lora, recompute_layers, train_layers

PATH, DEPTH, TEXT, PATCHES, LABELS = "model.layers", 4, 10, 4, 3
SIZES = {
    "vocab_size": 600,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


@pytest.fixture(autouse=True)
def loss_of_a_gpu(monkeypatch):
    """The prices are a GPU's. On a CPU the forward pass computes a frozen head's gradient, and no logits are kept."""
    monkeypatch.setattr(label_loss, "_has_frozen_weight", lambda head, states: False)


def llava():
    family = FAMILIES["llava_llama"]
    model = family.load_model_class()(family.load_config_class()(**SIZES))
    model.config.mm_hidden_size, model.config.mm_projector_type = 24, "mlp2x_gelu"
    model.model.mm_projector = build_vision_projector(model.config)
    return model


def shape_of(model):
    projector = model.model.mm_projector
    del model.model.mm_projector
    shape = ModelShape.of(model, PATH, projector)
    model.model.mm_projector = projector
    return shape


def prepare(model, mode, spec, r=4, dropout=0.0):
    """What trains, as the trainer chooses it; the wrapped model and the selection."""
    model.requires_grad_(False)
    wrapped, selection = model, None
    if mode != "projector":
        selection = LayerSelection.parse(spec, len(model.model.layers))
    if mode == "lora":
        wrapped = apply_lora(model, selection, PATH, r=r, lora_alpha=8, lora_dropout=dropout)
    elif mode == "full":
        train_layers(model, selection, PATH)
    return wrapped.train(), selection


def counted(model, wrapped, recipe):
    """FLOPs of forward and of backward, as torch counts them."""
    model.set_attn_implementation("eager")
    model.config.use_cache = False
    if recipe.gradient_checkpointing:
        wrapped.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    kwargs = {}
    if recipe.image_tokens:
        ids = torch.tensor([[1, -200, *[5] * (recipe.text_tokens - 1)]])
        kwargs["image_features"] = torch.randn(1, recipe.image_tokens, 24)
    else:
        ids = torch.full((1, recipe.text_tokens), 5)
    labels = torch.full_like(ids, -100)
    labels[0, -recipe.labelled_tokens :] = 7
    if hasattr(model, "label_only_logits"):
        model.label_only_logits = recipe.label_only_logits
    with FlopCounterMode(display=False) as forward:
        loss = wrapped(input_ids=ids, labels=labels, **kwargs).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("mode", "spec", "image", "projector"),
    [
        ("lora", "0,2", True, True),
        ("lora", "all", True, True),
        ("lora", "1,3", True, False),
        ("lora", "1,3", False, True),
        ("full", "0,2", True, True),
        ("full", "all", True, True),
        ("full", "2,3", False, True),
        ("projector", None, True, True),
    ],
)
def test_flops_equal_torchs_counter(mode, spec, image, projector, checkpointing):
    recipe = Recipe(
        mode,
        TEXT,
        PATCHES if image else 0,
        LABELS,
        lora_r=4,
        gradient_checkpointing=checkpointing,
        train_projector=projector,
    )
    model = llava()
    shape = shape_of(model)
    wrapped, selection = prepare(model, mode, spec)
    model.model.mm_projector.requires_grad_(projector)
    flops = flops_per_sample(shape, selection, recipe)
    assert (flops.forward, flops.backward) == counted(model, wrapped, recipe)
    trained = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert trained_parameters(shape, selection, recipe).trained == trained
    assert trained_parameters(shape, selection, recipe).total == sum(p.numel() for p in wrapped.parameters())


@pytest.mark.parametrize("mode", ["lora", "full"])
@pytest.mark.parametrize(("config", "model"), [(Qwen2Config, Qwen2ForCausalLM), (Phi3Config, Phi3ForCausalLM)])
def test_flops_of_other_backbones(config, model, mode):
    """Biases, fused projections: the shapes are read off the modules."""
    model = model(config(**SIZES))
    shape = ModelShape.of(model, PATH)
    wrapped, selection = prepare(model, mode, "1,2")
    recipe = Recipe(mode, TEXT, 0, LABELS, lora_r=4, label_only_logits=False)
    flops = flops_per_sample(shape, selection, recipe)
    assert (flops.forward, flops.backward) == counted(model, wrapped, recipe)


@pytest.fixture(scope="module")
def vicuna_7b():
    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=32000,
                hidden_size=4096,
                intermediate_size=11008,
                num_hidden_layers=32,
                num_attention_heads=32,
                num_key_value_heads=32,
                tie_word_embeddings=False,
            )
        )
        projector = build_vision_projector(
            SimpleNamespace(mm_hidden_size=1024, hidden_size=4096, mm_projector_type="mlp2x_gelu")
        )
    return ModelShape.of(model, PATH, projector)


def test_vicuna_7b_as_worked_out_by_hand(vicuna_7b):
    """LoRA r 128 on all or a quarter of the layers, 768 tokens, head on all of them: TFLOP a sample and ratios."""

    def tflop(spec, **changes):
        selection = LayerSelection.parse(spec, 32)
        recipe = Recipe("lora", 192, 576, changes.pop("labelled", 77), lora_r=128, **changes)
        return flops_per_sample(vicuna_7b, selection, recipe).total / 1e12

    whole = {"label_only_logits": False}
    quarter = "sparse-uniform:25%"
    assert tflop(quarter, **whole) / tflop("all", **whole) == pytest.approx(0.950, abs=2e-3)
    assert tflop(quarter, **whole) == pytest.approx(21.6, rel=0.01)
    assert tflop(quarter) == pytest.approx(21.2, rel=0.01)
    # Recomputation that stops early: a frozen layer's last matmul is left out, an adapted layer's is not.
    again = {**whole, "gradient_checkpointing": True}
    assert tflop(quarter, **again) / tflop("all", **again) == pytest.approx(0.905, abs=2e-3)
    assert vicuna_7b.language_model == 6_738_415_616


@pytest.mark.parametrize("mode", ["lora", "full", "full-all", "projector"])
def test_bytes_on_disk_are_those_of_a_run(tiny, train_flags, tmp_path, mode):
    from llava.train.train import train

    spec = "all" if mode == "full-all" else "0,3"
    mode = mode.split("-")[0]
    flags = {
        "lora": {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "tune_layers": spec},
        "full": {"tune_layers": spec},
        "projector": {"tune_mm_mlp_adapter": True, "version": "plain", "data_path": tiny.captions},
    }[mode]
    train(argv=train_flags(tmp_path, max_steps=1, save_strategy="steps", save_steps=1, **flags))

    model = LlamaForCausalLM.from_pretrained(tiny.llm)
    names = SimpleNamespace(mm_hidden_size=24, hidden_size=32, mm_projector_type="mlp2x_gelu")
    tower = sum(p.numel() for p in CLIPVisionModel.from_pretrained(tiny.tower).parameters())
    shape = ModelShape.of(model, PATH, build_vision_projector(names), tower_parameters=tower)
    recipe = Recipe(mode, 10, 4, 3, lora_r=4)
    selection = None if mode == "projector" else LayerSelection.parse(spec, 6)
    trained = trained_parameters(shape, selection, recipe)
    needed = bytes_needed(shape, trained, recipe, itemsize=4)

    def size(folder, *names):
        return sum(file.stat().st_size for name in names for file in folder.glob(name))

    headers = 40_000
    weights = ("model.safetensors", "adapter_model.safetensors", "*.bin")
    written = size(tmp_path, *weights) - size(tmp_path, "training_args.bin")
    assert 0 <= written - needed.result < headers
    kept = tmp_path / "checkpoint-1"
    written = size(kept, *weights, "optimizer.pt") - size(kept, "training_args.bin")
    assert 0 <= written - needed.checkpoint < 2 * headers


@pytest.mark.parametrize(("mode", "spec", "dropout"), [("lora", "0,2", 0.0), ("lora", "all", 0.05), ("full", "1", 0.0)])
def test_activation_memory_is_what_autograd_keeps(mode, spec, dropout):
    rows, text = 2, 60
    recipe = Recipe(mode, text, PATCHES, 40, lora_r=4)
    model = llava()
    shape = shape_of(model)
    meter = ActivationMeter(LlamaForCausalLM, LlamaConfig(**SIZES), PATH, torch.float32, dropout)
    model.label_only_logits = True
    wrapped, selection = prepare(model, mode, spec, dropout=dropout)
    model.model.mm_projector.requires_grad_(True)
    model.set_attn_implementation("sdpa")
    ids = torch.tensor([[1, -200, *[5] * (text - 1)]] * rows)
    labels = torch.full_like(ids, -100)
    labels[:, -40:] = 7
    features = torch.randn(rows, PATCHES, 24)
    weights = {p.untyped_storage()._cdata for p in wrapped.parameters()}
    real = saved_bytes(lambda: wrapped(input_ids=ids, labels=labels, image_features=features).loss, weights)
    assert meter.kept(shape, selection, recipe, rows) == pytest.approx(real, rel=0.02)

    # The inputs of recomputed layers are kept outside of autograd's sight, and one layer at a time is whole again.
    again = (1, 3)
    recompute_layers(model, again, PATH)
    less = saved_bytes(lambda: wrapped(input_ids=ids, labels=labels, image_features=features).loss, weights)
    kind = {i: mode if i in selection else "frozen" for i in again}
    whole = max(meter.layer(kind[i], recipe, rows)[0] for i in again)
    inputs = len(again) * rows * recipe.length * SIZES["hidden_size"] * 4
    assert meter.kept(shape, selection, recipe, rows, again) - whole - inputs == pytest.approx(less, rel=0.05)


def test_logits_in_chunks_take_the_memory_of_one_chunk(monkeypatch):
    rows, text, labelled = 2, 60, 40
    recipe, selection = Recipe("lora", text, 0, labelled, lora_r=4), LayerSelection.parse("0,2", DEPTH)
    model = llava()
    shape = shape_of(model)
    meter = ActivationMeter(LlamaForCausalLM, LlamaConfig(**SIZES), PATH, torch.float32, 0.0)
    whole = meter.peak(shape, selection, recipe, rows)
    model.label_only_logits = True
    wrapped, _ = prepare(model, "lora", "0,2")
    ids = torch.full((rows, text), 5)
    labels = torch.full_like(ids, -100)
    labels[:, -labelled:] = 7
    weights = {p.untyped_storage()._cdata for p in wrapped.parameters()}
    kept = saved_bytes(lambda: wrapped(input_ids=ids, labels=labels).loss, weights)

    monkeypatch.setattr(label_loss, "LOGITS_AT_ONCE", 16 * shape.vocab_size)
    chunked = saved_bytes(lambda: wrapped(input_ids=ids, labels=labels).loss, weights)
    logits = rows * labelled * shape.vocab_size * 4
    # Frozen, the head keeps logits only; the chunks keep its inputs.
    inputs = rows * labelled * SIZES["hidden_size"] * 4
    assert kept - chunked == pytest.approx(logits - inputs, rel=0.01)
    # Float32: logits, their softmax and their gradient.
    less = (rows * labelled - 16) * shape.vocab_size * 12
    assert whole - meter.peak(shape, selection, recipe, rows) == less
    assert meter.peak(shape, selection, recipe, rows, chunked=False) == whole


def test_checkpointing_trades_memory_for_flops():
    meter = ActivationMeter(LlamaForCausalLM, LlamaConfig(**SIZES), PATH, torch.bfloat16, 0.05)
    shape = shape_of(llava())
    few, everything = (LayerSelection.parse(spec, DEPTH) for spec in ("0", "all"))
    plain, again = (Recipe("lora", 60, 4, 6, lora_r=4, gradient_checkpointing=c) for c in (False, True))
    assert meter.peak(shape, everything, again, 1) < meter.peak(shape, few, plain, 1)
    assert meter.peak(shape, few, plain, 1) < meter.peak(shape, everything, plain, 1)
    assert flops_per_sample(shape, few, again).total > flops_per_sample(shape, few, plain).total


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"mode": "lorra"}, "allowed: lora, full, projector"), ({"labelled_tokens": 11}, "from 1 to the 10 text tokens")],
)
def test_recipes_that_make_no_sense(changes, words):
    with pytest.raises(CostError, match=words):
        Recipe(**({"mode": "lora", "text_tokens": 10, "image_tokens": 4, "labelled_tokens": 3} | changes))
