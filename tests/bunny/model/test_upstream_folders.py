"""Folders as upstream's Bunny writes them: its file names, key names, suffix lists and config keys, nothing of ours."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bunny.model.builder import load_pretrained_model
from llava.constants import IMAGE_TOKEN_INDEX
from llava.families import known_families

CONFIG = {
    "architectures": ["PhiForCausalLM"],
    "freeze_mm_mlp_adapter": False,
    "image_aspect_ratio": "pad",
    "mm_hidden_size": 24,
    "mm_projector_lr": 2e-05,
    "mm_projector_type": "mlp2x_gelu",
    "tokenizer_model_max_length": 2048,
    "tokenizer_padding_side": "right",
    "tune_mm_mlp_adapter": False,
    "use_mm_proj": True,
    "use_s2": False,
    "unfreeze_vision_tower": False,
}
TARGETS = {
    "bunny-phi": ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"],
    "bunny-phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    "bunny-qwen2": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
IDS = torch.tensor([[1, IMAGE_TOKEN_INDEX, 5, 6]])


def tensors(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def projector():
    return tensors({"0.weight": (32, 24), "0.bias": (32,), "2.weight": (32, 32), "2.bias": (32,)})


def upstream_tower(siglip, by):
    """Names with a level that transformers has dropped, up to the layer that is used."""
    published = load_file(siglip / "model.safetensors")
    kept = {n: v + by for n, v in published.items() if "layers.2." not in n and not n.startswith("head.")}
    return {f"model.vision_tower.vision_tower.vision_model.{name}": value for name, value in kept.items()}


def write(folder, backbone, name, siglip, weights=None, **config):
    folder.mkdir()
    values = json.loads((backbone / "config.json").read_text())
    values |= CONFIG | {"model_type": name, "mm_vision_tower": str(siglip)} | config
    (folder / "config.json").write_text(json.dumps(values))
    if weights is not None:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        for file in backbone.glob("*token*"):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def adapter_of(base, targets, folder):
    """An adapter under PEFT's names with upstream's list of suffixes; returns the deltas that it stands for."""
    stems = [n.removesuffix(".weight") for n in base if n.endswith(".weight") and n.split(".")[-2] in targets]
    assert stems
    lora, deltas = {}, {}
    for i, stem in enumerate(stems):
        rows, columns = base[f"{stem}.weight"].shape
        a, b = tensors({"a": (2, columns), "b": (rows, 2)}, seed=i).values()
        lora[f"base_model.model.{stem}.lora_A.weight"], lora[f"base_model.model.{stem}.lora_B.weight"] = a, b
        deltas[f"{stem}.weight"] = b @ a * 2
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "lora_dropout": 0.05}
    config |= {"target_modules": targets, "bias": "none", "base_model_name_or_path": "microsoft/some-model"}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"inference_mode": True}))
    save_file(lora, folder / "adapter_model.safetensors", {"format": "pt"})
    return deltas


def expected_logits(name, backbone, siglip, projector_weights, deltas, tower_shift, images):
    """Put together by hand: base plus deltas, features of transformers' SigLIP, projector as two matrices."""
    from transformers import AutoModelForCausalLM, SiglipVisionModel

    model = AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.float32)
    tower = SiglipVisionModel.from_pretrained(siglip)
    with torch.no_grad():
        for stem, delta in deltas.items():
            model.get_parameter(stem).add_(delta)
        if getattr(model.lm_head, "bias", None) is not None:
            model.lm_head.bias.zero_()
        for parameter in tower.parameters():
            parameter.add_(tower_shift)
        features = tower(images, output_hidden_states=True).hidden_states[-2]
        p = projector_weights
        hidden = torch.nn.functional.gelu(features @ p["0.weight"].T + p["0.bias"])
        tokens = hidden @ p["2.weight"].T + p["2.bias"]
        words = model.get_input_embeddings()(IDS.clamp(min=0))
        return model(inputs_embeds=torch.cat([words[:, :1], tokens, words[:, 2:]], dim=1)).logits


@pytest.mark.parametrize("shift", [0.0, 0.05], ids=["tower-frozen", "tower-trained"])
@pytest.mark.parametrize("name", TARGETS)
def test_lora(name, shift, backbones, siglip, tmp_path):
    """No tokenizer in the folder; a trained tower's weights next to the projector."""
    backbone, trained = backbones[name], projector()
    folder = write(tmp_path / "any-name", backbone, name, siglip, unfreeze_vision_tower=bool(shift))
    deltas = adapter_of(load_file(backbone / "model.safetensors"), TARGETS[name], folder)
    beside = {f"base_model.model.model.mm_projector.{n}": v for n, v in trained.items()}
    if shift:
        beside |= {f"base_model.model.{n}": v for n, v in upstream_tower(siglip, shift).items()}
    torch.save(beside, folder / "non_lora_trainables.bin")
    check(name, folder, str(backbone), backbone, siglip, trained, deltas, shift)


@pytest.mark.parametrize("shift", [0.0, 0.05], ids=["tower-frozen", "tower-trained"])
def test_full(shift, backbones, siglip, tmp_path):
    """A copy of the tower is in the file either way; it counts where it was trained."""
    name, trained = "bunny-phi", projector()
    weights = load_file(backbones[name] / "model.safetensors")
    del weights["lm_head.bias"]
    weights |= {f"model.mm_projector.{n}": v for n, v in trained.items()} | upstream_tower(siglip, shift or 0.3)
    folder = write(tmp_path / "m", backbones[name], name, siglip, weights, unfreeze_vision_tower=bool(shift))
    check(name, folder, None, backbones[name], siglip, trained, {}, shift)


def test_projector(backbones, siglip, tmp_path):
    name, trained = "bunny-qwen2", projector()
    folder = write(tmp_path / "m", backbones[name], name, siglip, tune_mm_mlp_adapter=True)
    torch.save({f"model.mm_projector.{n}": v for n, v in trained.items()}, folder / "mm_projector.bin")
    check(name, folder, str(backbones[name]), backbones[name], siglip, trained, {}, 0.0)


def check(name, folder, base, backbone, siglip, trained, deltas, shift):
    images = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(3))
    tokenizer, model, _, _ = load_pretrained_model(str(folder), base, "any", device="cpu")
    assert type(model) is known_families()[name].load_model_class()
    assert tokenizer.eos_token == "<|endoftext|>"
    with torch.no_grad():
        logits = model(input_ids=IDS, images=images).logits
    expected = expected_logits(name, backbone, siglip, trained, deltas, shift, images)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
