"""Metrics of parameters against the formula on whole tensors in float64, for every format of checkpoint."""

import json
import math
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llava.checkpoint.folder import open_checkpoint
from visual_region.importance.angular_param import METRIC, angular_param
from visual_region.importance.angular_param_vector import angular_param_vector
from visual_region.importance.parameter_change import parameter_change
from visual_region.importance.parameters import check_comparable, compare_layers
from visual_region.importance.weights import decoder_weights

LAYERS = 6


def open_weights(folder, **kwargs):
    return decoder_weights(open_checkpoint(folder), **kwargs)


def score(trained, backbone):
    pair = open_weights(trained), open_weights(backbone)
    check_comparable(*pair)
    return list(compare_layers(*pair, range(LAYERS)))


def naive(trained, backbone):
    """The metrics and the zeros of each layer, from two state dicts."""
    ratios, angles, vectors, zeros = [], [], [], []

    def angle(new, old):
        return math.acos(min(1.0, (new @ old / (new.norm() * old.norm())).item())) / math.pi

    for i in range(LAYERS):
        names = sorted(name for name in backbone if name.startswith(f"model.layers.{i}."))
        old = torch.cat([backbone[name].double().flatten() for name in names])
        new = torch.cat([trained[name].double().flatten() for name in names])
        kept = old != 0
        ratios.append(((new - old)[kept] / old[kept]).abs().mean().item())
        vectors.append(angle(new, old))
        pairs = [(trained[name].double().flatten(), backbone[name].double().flatten()) for name in names]
        angles.append(sum(angle(*pair) for pair in pairs) / len(names))
        zeros.append(int((~kept).sum()))
    return ratios, angles, vectors, zeros


def changed_copy(source, target, change):
    """The folder with its weights changed: `change(name, tensor)` returns the new tensor."""
    shutil.copytree(source, target)
    state = {name: change(name, tensor) for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(state, target / "model.safetensors", {"format": "pt"})
    return state


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    """Pieces that do not divide the tensors, so that the seams are tested."""
    monkeypatch.setattr("visual_region.importance.parameters.PIECE", 300)


@pytest.fixture(scope="module")
def noisy(tiny, tmp_path_factory):
    generator = torch.Generator().manual_seed(5)
    folder = tmp_path_factory.mktemp("trained") / "noisy"

    def change(name, tensor):
        return tensor + 0.01 * torch.randn(tensor.shape, generator=generator)

    return folder, changed_copy(tiny.llm, folder, change)


def test_equals_the_formulas(tiny, noisy):
    folder, state = noisy
    ratios, angles, vectors, zeros = naive(state, load_file(tiny.llm / "model.safetensors"))
    sums = score(folder, tiny.llm)
    assert parameter_change(sums) == pytest.approx(ratios, rel=1e-6)
    assert angular_param(sums) == pytest.approx(angles, abs=1e-6)
    assert angular_param_vector(sums) == pytest.approx(vectors, abs=1e-6)
    assert abs(angles[0] - vectors[0]) > 1e-4, "the mean of the tensors' angles is not the angle of all weights"
    assert [s.zeros for s in sums] == zeros == [0] * LAYERS


def test_shards_and_bin_files_score_alike(tiny, noisy, tmp_path):
    folder, state = noisy
    expected = parameter_change(score(folder, tiny.llm))
    shutil.copytree(folder, tmp_path / "bin")
    (tmp_path / "bin/model.safetensors").unlink()
    # Vicuna's and LLaVA's own files hold the rotation's frequencies, which are no parameters.
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    torch.save(state | old, tmp_path / "bin/pytorch_model.bin")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    for name in ("bin", "shards"):
        assert parameter_change(score(tmp_path / name, tiny.llm)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_transformers_own_llava_scores_alike(tiny, noisy, tmp_path, prefix):
    """Weights under `language_model`, the language model's config under `text_config`."""
    folder, state = noisy
    shutil.copytree(folder, tmp_path / "hf")
    renamed = {name.replace("model.", prefix, 1): tensor for name, tensor in state.items()}
    renamed["vision_tower.encoder.layers.0.self_attn.q_proj.weight"] = torch.zeros(4, 4)
    save_file(renamed, tmp_path / "hf/model.safetensors", {"format": "pt"})
    text = json.loads((folder / "config.json").read_text())
    (tmp_path / "hf/config.json").write_text(json.dumps({"model_type": "llava", "text_config": text}))
    expected = parameter_change(score(folder, tiny.llm))
    assert parameter_change(score(tmp_path / "hf", tiny.llm)) == pytest.approx(expected, rel=1e-12)


def test_scaling_a_layer_gives_the_scale(tiny, tmp_path):
    changed_copy(tiny.llm, tmp_path / "scaled", lambda name, t: t * 1.25 if ".layers.2." in name else t)
    sums = score(tmp_path / "scaled", tiny.llm)
    assert parameter_change(sums) == pytest.approx([0, 0, 0.25, 0, 0, 0], abs=1e-7)
    for metric in (angular_param, angular_param_vector):
        assert metric(sums) == pytest.approx([0] * LAYERS, abs=1e-7)


def test_zeros_are_left_out_and_counted(tiny, tmp_path):
    def some_zeros(name, tensor):
        tensor = tensor.clone()
        if name.endswith("layers.1.mlp.up_proj.weight"):
            tensor[:3] = 0
        return tensor

    old = changed_copy(tiny.llm, tmp_path / "old", some_zeros)
    new = changed_copy(tmp_path / "old", tmp_path / "new", lambda name, t: t * 1.5 + 0.1 * (t == 0))
    sums = score(tmp_path / "new", tmp_path / "old")
    assert parameter_change(sums) == pytest.approx([0.5] * LAYERS, rel=1e-6)
    assert [s.zeros for s in sums] == naive(new, old)[3] == [0, 3 * 32, 0, 0, 0, 0]
    assert all(math.isfinite(value) for value in angular_param(sums))


def test_a_tensor_of_zeros_has_no_angle(tiny, tmp_path):
    zeroed = "layers.1.mlp.up_proj.weight"
    changed_copy(tiny.llm, tmp_path / "old", lambda name, t: t * 0 if name.endswith(zeroed) else t)
    changed_copy(tmp_path / "old", tmp_path / "new", lambda name, t: torch.cat([-t[:1], t[1:]]) + (t == 0))
    sums = score(tmp_path / "new", tmp_path / "old")
    entry = METRIC.entry(sums)
    assert (entry["tensors"], entry["left_out"]) == ([9] * LAYERS, [0, 1, 0, 0, 0, 0])
    expected = [angle for angle in sums[1].angles if angle is not None]
    assert entry["values"][1] == pytest.approx(sum(expected) / 8)
    assert entry["values"][1] > 0


LORA_SETTINGS = [{}, {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"up_proj": 3}}]
DTYPES = [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16)]


@pytest.mark.parametrize(("base_dtype", "merged_dtype"), DTYPES)
@pytest.mark.parametrize("settings", LORA_SETTINGS)
def test_a_lora_scores_as_its_merged_twin(tiny, tmp_path, base_dtype, merged_dtype, settings):
    """Whatever the twin is stored in."""
    AutoModelForCausalLM.from_pretrained(tiny.llm, dtype=base_dtype).save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=merged_dtype)
    torch.manual_seed(0)
    targets = r"model\.layers\.(0|3)\.(self_attn|mlp)\.(q|v|up|down)_proj"
    wrapped = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=targets, **settings))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    wrapped.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    wrapped.save_pretrained(tmp_path / "lora")
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    backbone = open_weights(tmp_path / "base")
    lora = open_weights(tmp_path / "lora", dtype=merged_dtype)
    merged = open_weights(tmp_path / "merged")
    found, twin = (list(compare_layers(weights, backbone, range(LAYERS))) for weights in (lora, merged))
    for metric in (parameter_change, angular_param, angular_param_vector):
        assert metric(found) == pytest.approx(metric(twin), rel=1e-6, abs=1e-9)
        assert [value > 0 for value in metric(found)] == [True, False, False, True, False, False]


def test_an_adapter_that_is_no_sum_is_refused(tiny, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(tiny.llm)
    wrapped = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], use_dora=True))
    wrapped.peft_config["default"].base_model_name_or_path = str(tiny.llm)
    wrapped.save_pretrained(tmp_path / "dora")
    with pytest.raises(ValueError, match=r"use_dora.*merge it"):
        open_weights(tmp_path / "dora")


def test_other_shapes_are_named(tiny, tmp_path):
    changed_copy(
        tiny.llm, tmp_path / "wide", lambda n, t: t[:, :7].clone() if n.endswith("4.mlp.up_proj.weight") else t
    )
    with pytest.raises(
        ValueError, match=r"model\.layers\.4\.mlp\.up_proj\.weight is \(64, 7\) in the first and \(64, 32\)"
    ):
        score(tmp_path / "wide", tiny.llm)


def test_other_depths_are_named(tiny, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny.llm)
    del model.model.layers[5]
    model.config.num_hidden_layers = 5
    model.save_pretrained(tmp_path / "short")
    with pytest.raises(ValueError, match=r"model\.layers\.5\.input_layernorm\.weight is absent .* 5 and 6 layers"):
        score(tmp_path / "short", tiny.llm)


def test_memory_is_a_few_pieces(noisy):
    """Reading goes through one buffer a tensor, not through a map of the file."""
    stored = next(iter(open_weights(noisy[0]).layers[0].values()))
    assert stored.file is not None
    pieces = [piece.data_ptr() for piece in stored.pieces(7)]
    assert len(pieces) > 1
    assert len(set(pieces)) == 1
