"""A tower that trains: it moves, is saved, comes back, and wins over the published one; S2 in training."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.checkpoint.opened import CheckpointError
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.builder import load_pretrained_model
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.train.tower_check import describe_tower

MODES = {
    "projector": {"tune_mm_mlp_adapter": True},
    "lora": {"lora_enable": True, "lora_r": 2, "lora_alpha": 4, "tune_layers": "0,3"},
    "full": {"tune_layers": "1"},
    "full-all": {},
}


@pytest.fixture
def flags(tiny, backbones, siglip, train_flags):
    def make(output, mode="lora", **changes):
        values = MODES[mode] | {
            "model_name_or_path": backbones["bunny-qwen2"],
            "vision_tower": siglip,
            "version": None,
            "unfreeze_vision_tower": True,
            "max_steps": 3,
            "save_strategy": "steps",
            "save_steps": 2,
        }
        if mode == "projector":
            values["data_path"] = tiny.captions
        return train_flags(output, **values | changes)

    return make


def logits(model, side=28):
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=torch.tensor([[1, IMAGE_TOKEN_INDEX, 5, 6]]), images=images).logits


def tower_of(folder, base=None, **kwargs):
    return (
        load_pretrained_model(str(folder), base, device="cpu", **kwargs)[1].get_vision_tower().vision_tower.state_dict()
    )


@pytest.mark.parametrize("mode", MODES)
def test_trains_is_saved_and_resumes(mode, flags, siglip, backbones, tmp_path, run, tiny):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    trained = run("bunny", flags(whole, mode))
    base = None if mode.startswith("full") else str(backbones["bunny-qwen2"])
    loaded = load_pretrained_model(str(whole), base, device="cpu")[1]
    torch.testing.assert_close(logits(loaded), logits(trained), atol=1e-5, rtol=1e-4)

    published = load_file(siglip / "model.safetensors")
    own = loaded.get_vision_tower().vision_tower.state_dict()
    changed = {name for name, value in published.items() if not torch.equal(own[name], value)}
    # Layer 2 of 3 and the head come after the features that are taken; weights of the others all move.
    unused = ("encoder.layers.2.", "post_layernorm.", "head.")
    assert not [name for name in changed if name.startswith(unused)]
    weights = {name for name in published if name.endswith("weight") and not name.startswith(unused)}
    assert weights <= changed

    # A path given at load says where the published tower is, not that its weights should come back (LLaVA#1533).
    again = tower_of(whole, base, vision_tower=str(siglip))
    assert all(torch.equal(again[name], value) for name, value in own.items())

    shutil.copytree(whole / "checkpoint-2", stopped / "checkpoint-2")
    run("bunny", flags(stopped, mode))
    resumed = tower_of(stopped, base)
    assert all(torch.equal(resumed[name], value) for name, value in own.items())


def test_names_in_files_are_upstreams(flags, tmp_path, run):
    run("bunny", flags(tmp_path / "lora"))
    lora = torch.load(tmp_path / "lora" / "non_lora_trainables.bin", weights_only=True)
    run("bunny", flags(tmp_path / "full", "full"))
    full = load_file(tmp_path / "full" / "model.safetensors")
    inside = "model.vision_tower.vision_tower.vision_model."
    for names, prefix in ((lora, "base_model.model." + inside), (full, inside)):
        towers = {name.removeprefix(prefix) for name in names if "vision_tower" in name}
        assert "encoder.layers.2.mlp.fc1.weight" in towers
        assert "embeddings.patch_embedding.weight" in towers
        assert "head.probe" in towers


def test_lora_stays_out_of_a_trained_tower(flags, tmp_path, run):
    """SigLIP's layers have the same names and numbers as the decoder's (LLaVA#1647), also where one run follows
    another with the tower's weights in its base."""
    first, second = tmp_path / "first", tmp_path / "second"
    run("bunny", flags(first, "full", max_steps=1, save_strategy="no"))
    for base, out in ((None, tmp_path / "out"), (first, second)):
        changes = {} if base is None else {"model_name_or_path": base}
        run("bunny", flags(out, "lora", max_steps=1, save_strategy="no", **changes))
        names = load_file(out / "adapter_model.safetensors")
        assert {name.split(".layers.")[0] for name in names} == {"base_model.model.model"}
        assert {name.split(".layers.")[1].split(".")[0] for name in names} == {"0", "3"}


def test_tower_has_the_projectors_rate_and_its_drift_is_told(flags, tmp_path, run, capsys):
    run("bunny", flags(tmp_path / "out", mm_projector_lr=1e-3, max_steps=2, save_strategy="no"))
    printed = capsys.readouterr().out
    moved = re.search(r"vision tower: its weights moved by (.*)%; two images of noise are (.*)% apart", printed)
    assert 0 < float(moved.group(1)) < 10 < float(moved.group(2))
    rows = {line.split("  ")[0]: line.split()[-1] for line in printed.splitlines() if "  " in line}
    assert rows["vision tower"] == rows["projector"] == "0.001"
    assert rows["decoder layers (LoRA)"] == "0.01"


def test_frozen_again_the_trained_tower_stays(flags, siglip, tmp_path, run):
    """A second run on the result, tower frozen: its LoRA finds the tower in its base (Bunny#137)."""
    first, second = tmp_path / "first", tmp_path / "second"
    run("bunny", flags(first, "full", max_steps=2))
    changes = {"model_name_or_path": first, "unfreeze_vision_tower": False, "save_strategy": "no", "max_steps": 2}
    trained = run("bunny", flags(second, "lora", **changes))
    loaded = load_pretrained_model(str(second), str(first), device="cpu")[1]
    torch.testing.assert_close(logits(loaded), logits(trained), atol=1e-5, rtol=1e-4)
    kept, once = tower_of(second, str(first)), tower_of(first)
    assert all(torch.equal(kept[name], value) for name, value in once.items())
    # The features' cache tells the two towers apart.
    tower = loaded.get_vision_tower()
    assert tower.weight_files != build_vision_tower(loaded.config, delay_load=True).weight_files


def test_a_whole_model_keeps_its_trained_tower_with_cached_features(flags, tmp_path, run):
    """The features of a frozen tower are read from a file, but the result holds the tower."""
    first, second = tmp_path / "first", tmp_path / "second"
    run("bunny", flags(first, "full", max_steps=1, save_strategy="no"))
    changes = {"model_name_or_path": first, "unfreeze_vision_tower": False, "save_strategy": "no", "max_steps": 1}
    # Once with an empty cache, once with a full one, where the tower is not needed for features.
    for _ in range(2):
        shutil.rmtree(second, ignore_errors=True)
        run("bunny", flags(second, "full", **changes, vision_feature_cache=tmp_path / "features"))
        kept, once = tower_of(second), tower_of(first)
        assert all(torch.equal(kept[name], value) for name, value in once.items())


def test_tower_weights_that_are_gone_or_of_another(flags, backbones, tmp_path, run):
    out = tmp_path / "out"
    run("bunny", flags(out, "full", max_steps=1, save_strategy="no"))
    weights = load_file(out / "model.safetensors")
    name = "model.vision_tower.vision_tower.vision_model.embeddings.patch_embedding.weight"
    save_file(weights | {name: torch.zeros(24, 3, 7, 7)}, out / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="does not fit this tower"):
        load_pretrained_model(str(out), device="cpu")
    # Upstream's SigLIP ends with the layer that it takes the features from.
    short = {n: v for n, v in weights.items() if ".head." not in n and "encoder.layers.2." not in n}
    save_file(short, out / "model.safetensors", {"format": "pt"})
    load_pretrained_model(str(out), device="cpu")
    save_file({n: v for n, v in weights.items() if n != name}, out / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="missing"):
        load_pretrained_model(str(out), device="cpu")


def test_tower_that_went_blind_is_told(siglip):
    """The same answer for any image (Bunny#140)."""
    from types import SimpleNamespace

    tower = build_vision_tower(SimpleNamespace(mm_vision_tower=str(siglip)))
    tower.unfreeze()
    assert "0.00%" in describe_tower(tower)
    assert "warning" not in describe_tower(tower)
    with torch.no_grad():
        tower.vision_tower.embeddings.patch_embedding.weight.zero_()
    assert "no longer tells images apart" in describe_tower(tower)


@pytest.mark.parametrize("mode", ["projector", "lora"])
def test_clip_trains_in_bfloat16(tiny, mode, train_flags, tmp_path, run, capsys):
    """The tower is looked at without autocast, with the layers after its features, which do not train."""
    changes = MODES[mode] | {"unfreeze_vision_tower": True, "max_steps": 1, "save_strategy": "no", "bf16": True}
    run("llava", train_flags(tmp_path / "out", **changes))
    assert "vision tower: its weights moved by " in capsys.readouterr().out
    assert json.loads((tmp_path / "out/run_settings.json").read_text())["finished"]


def test_clip_trains_too(tiny, train_flags, tmp_path, run):
    changes = MODES["lora"] | {"unfreeze_vision_tower": True, "max_steps": 2, "save_strategy": "no"}
    trained = run("llava", train_flags(tmp_path / "out", **changes))
    loaded = load_pretrained_model(str(tmp_path / "out"), str(tiny.llm), device="cpu")[1]
    torch.testing.assert_close(logits(loaded), logits(trained), atol=1e-5, rtol=1e-4)
    published = load_file(tiny.tower / "model.safetensors")
    own = loaded.get_vision_tower().vision_tower.state_dict()
    name = "encoder.layers.0.mlp.fc1.weight"
    assert not torch.equal(own[name], published.get(name, published.get("vision_model." + name)))


@pytest.mark.parametrize("mode", ["projector", "lora", "full"])
def test_bfloat16_with_checkpointing(mode, flags, tmp_path, run):
    """As the scripts run it: weights that train are kept in float32, and the loss is that of plain float32."""
    results = {}
    for name, changes in {"plain": {}, "scripts": {"bf16": True, "gradient_checkpointing": True}}.items():
        changes |= {"save_strategy": "no", "lora_dropout": 0, "max_steps": 2}
        model = run("bunny", flags(tmp_path / name, mode, **changes))
        history = json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"]
        results[name] = [float(entry["loss"]) for entry in history if "loss" in entry]
        if mode != "full":
            trained = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
            assert trained == {torch.float32}
    assert results["scripts"] == pytest.approx(results["plain"], abs=0.05)


@pytest.mark.parametrize("mode", ["projector", "lora", "full"])
def test_s2(mode, flags, siglip, backbones, tmp_path, run):
    out = tmp_path / "out"
    changes = {"unfreeze_vision_tower": False, "use_s2": True, "save_strategy": "no", "max_steps": 2}
    trained = run("bunny", flags(out, mode, **changes))
    config = json.loads((out / "config.json").read_text())
    assert config["use_s2"] is True
    assert config["mm_hidden_size"] == 3 * 24
    base = None if mode == "full" else str(backbones["bunny-qwen2"])
    loaded = load_pretrained_model(str(out), base, device="cpu")[1]
    torch.testing.assert_close(logits(loaded, 84), logits(trained, 84), atol=1e-5, rtol=1e-4)
    own = loaded.get_vision_tower().vision_tower.state_dict()
    assert all(torch.equal(own[name], value) for name, value in load_file(siglip / "model.safetensors").items())


def test_cached_features_leave_the_loss_alone(flags, tmp_path, run):
    losses = {}
    for name, changes in {
        "computed": {},
        "cached": {"vision_feature_cache": tmp_path / "cache"},
        "from-cache": {"vision_feature_cache": tmp_path / "cache"},
    }.items():
        changes |= {"unfreeze_vision_tower": False, "use_s2": True, "save_strategy": "no", "lora_dropout": 0}
        run("bunny", flags(tmp_path / name, "lora", **changes))
        history = json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"]
        losses[name] = [float(entry["loss"]) for entry in history if "loss" in entry]
    assert losses["computed"] == pytest.approx(losses["cached"], abs=2e-4)
    assert losses["cached"] == losses["from-cache"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision_feature_cache": "cache"}, "features of a tower that trains change"),
        ({"model_type": "phi-2"}, "values that fit it: qwen1.5-1.8b"),
        ({"model_type": "minicpm"}, "is not supported"),
        ({"version": "llama"}, "does not fit the tokenizer"),
        ({"use_s2": True, "s2_scales": "30,60"}, "the first must be 28"),
    ],
)
def test_bad_input(flags, tmp_path, monkeypatch, changes, words):
    from bunny.train.train import train
    from llava.families import ModelFamily

    monkeypatch.setattr(ModelFamily, "load_model_class", lambda self: pytest.fail("weights were about to be loaded"))
    with pytest.raises(SystemExit) as stop:
        train(argv=flags(tmp_path / "out", **changes))
    assert words in str(stop.value)


def test_backbones_of_the_other_package(flags, backbones, tiny, train_flags, tmp_path):
    import bunny.train.train
    import llava.train.train

    with pytest.raises(SystemExit, match=r"use bunny/train/train\.py"):
        llava.train.train.train(argv=train_flags(tmp_path / "a", model_name_or_path=backbones["bunny-phi3"]))
    with pytest.raises(SystemExit, match=r"use llava/train/train\.py"):
        bunny.train.train.train(argv=flags(tmp_path / "b", model_name_or_path=backbones["llava_mistral"]))
