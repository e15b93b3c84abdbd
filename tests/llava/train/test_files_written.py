"""Names and shapes of what training writes equal those of the folders that upstream's trainer wrote."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from llava.train.train import train


@pytest.fixture
def flags(parity, tmp_path):
    """Upstream's settings of the reference runs."""

    def make(**changes):
        values = {
            "model_name_or_path": parity / "tiny-vicuna",
            "vision_tower": parity / "tiny-clip-56",
            "image_folder": parity / "images",
            "mm_vision_select_layer": -2,
            "mm_projector_type": "mlp2x_gelu",
            "image_aspect_ratio": "pad",
            "model_max_length": 2048,
            "max_steps": 1,
            "per_device_train_batch_size": 2,
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            "save_strategy": "no",
            "output_dir": tmp_path / "out",
        } | changes
        return [text for name, value in values.items() for text in (f"--{name}", str(value))]

    return make


def shapes(path):
    tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    return {name: tuple(value.shape) for name, value in tensors.items()}


def compare_config(found, reference):
    """Every setting that upstream wrote is there with its value; what names a machine or a release may differ."""
    found, reference = (json.loads((folder / "config.json").read_text()) for folder in (found, reference))
    free = {"_name_or_path", "architectures", "mm_vision_tower", "transformers_version"}
    free |= {"pretraining_tp"}
    assert {name: found.get(name) for name in reference if name not in free} == {
        name: value for name, value in reference.items() if name not in free
    }


def test_stage_1(parity, flags, tmp_path):
    train(argv=flags(data_path=parity / "pretrain.json", version="plain", tune_mm_mlp_adapter=True))
    out = tmp_path / "out"
    assert {file.name for file in (parity / "c_pretrain").iterdir()} <= {file.name for file in out.iterdir()}
    assert shapes(out / "mm_projector.bin") == shapes(parity / "c_pretrain" / "mm_projector.bin")
    compare_config(out, parity / "c_pretrain")


def test_lora(parity, flags, tmp_path):
    lora = {"lora_enable": True, "lora_r": 8, "lora_alpha": 16, "lora_dropout": 0, "mm_projector_lr": 2e-5}
    train(argv=flags(data_path=parity / "train.json", version="v1", **lora))
    out, reference = tmp_path / "out", parity / "c_lora"
    written = {file.name for file in out.iterdir()}
    assert {"config.json", "adapter_config.json", "non_lora_trainables.bin", "trainer_state.json"} <= written
    assert shapes(out / "adapter_model.safetensors") == shapes(reference / "adapter_model.bin")
    assert shapes(out / "non_lora_trainables.bin") == shapes(reference / "non_lora_trainables.bin")
    compare_config(out, reference)
    found, expected = (json.loads((f / "adapter_config.json").read_text()) for f in (out, reference))
    for name in ("bias", "inference_mode", "lora_alpha", "lora_dropout", "peft_type", "r", "task_type"):
        assert found[name] == expected[name], name
    assert found["base_model_name_or_path"] == str(parity / "tiny-vicuna")


def test_full(parity, flags, tmp_path):
    """A full folder holds what upstream's does: language model, projector, and the tower under its old names."""
    train(argv=flags(data_path=parity / "train.json", version="v1", tune_layers="1"))
    expected = shapes(parity / "llava-tiny" / "model.safetensors")
    with safe_open(parity / "tiny-clip-56" / "model.safetensors", framework="pt") as tower:
        for name in tower.keys():  # noqa: SIM118 - not a dict
            name_in_llava = name if name.startswith("vision_model.") else f"vision_model.{name}"
            if not name.endswith("position_ids"):
                shape = tuple(tower.get_slice(name).get_shape())
                expected[f"model.vision_tower.vision_tower.{name_in_llava}"] = shape
    assert shapes(tmp_path / "out" / "model.safetensors") == expected
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["LlavaLlamaForCausalLM"]
    compare_config(tmp_path / "out", parity / "llava-tiny")
