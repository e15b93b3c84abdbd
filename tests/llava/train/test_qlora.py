"""QLoRA: the language model in 4 or 8 bits trains like the whole one, and its adapter loads on the whole one."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from llava.model.builder import load_pretrained_model
from llava.train.train import train

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
LORA = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0, "tune_layers": "0,3", "max_steps": 2}
BITS = {
    "nf4": {"bits": 4},
    "fp4": {"bits": 4, "quant_type": "fp4", "double_quant": False, "gradient_checkpointing": True},
    "int8": {"bits": 8},
}
IDS = torch.tensor([[1, 5, 6, 7]])


def losses(output):
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.parametrize("kind", BITS)
def test_trains_the_selection_and_loads_on_the_whole_base(tiny, train_flags, tmp_path, kind, monkeypatch):
    seen = {}
    from llava.train import run as module

    def look(model, *arguments):
        result = original(model, *arguments)
        seen.update({name: type(part).__name__ for name, part in model.named_modules()})
        return result

    original = module.load_data
    monkeypatch.setattr(module, "load_data", look)
    train(argv=train_flags(tmp_path / "whole", **LORA))
    quantised = tmp_path / kind
    train(argv=train_flags(quantised, **LORA, **BITS[kind]))

    layers = {n: k for n, k in seen.items() if ".layers." in n and n.endswith(("_proj", "base_layer"))}
    linear = "Linear4bit" if BITS[kind]["bits"] == 4 else "Linear8bitLt"
    inside = {k for n, k in layers.items() if "vision_tower" not in n and "lora_" not in n}
    assert linear in inside
    assert "Linear" not in inside
    assert {k for n, k in layers.items() if "vision_tower" in n} == {"Linear"}
    assert not {k for n, k in seen.items() if "mm_projector." in n or n.endswith("lm_head")} - {"Linear", "GELU"}

    assert losses(quantised) == pytest.approx(losses(tmp_path / "whole"), rel=0.1)
    adapter = load_file(quantised / "adapter_model.safetensors")
    assert adapter.keys() == load_file(tmp_path / "whole" / "adapter_model.safetensors").keys()
    assert {int(name.split(".layers.")[1].split(".")[0]) for name in adapter} == {0, 3}
    assert "quantization_config" not in json.loads((quantised / "config.json").read_text())
    model = load_pretrained_model(str(quantised), str(tiny.llm), device="cpu")[1]
    assert not hasattr(model, "hf_quantizer")
    saved = torch.load(quantised / "non_lora_trainables.bin", weights_only=True)
    assert torch.equal(
        model.model.mm_projector[0].weight, saved["base_model.model.model.mm_projector.0.weight"].float()
    )
    again = load_pretrained_model(str(quantised), str(tiny.llm), device="cpu", load_8bit=True)[1]
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=IDS).logits).all()
        assert torch.isfinite(again(input_ids=IDS).logits).all()


def test_resumed_equals_never_stopped(tiny, train_flags, tmp_path):

    flags = LORA | BITS["nf4"] | {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    train(argv=train_flags(tmp_path / "whole", **flags))
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    train(argv=train_flags(tmp_path / "resumed", **flags))
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    whole, resumed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bits": 5}, "5 bits are not possible; allowed: 16, 8, 4"),
        ({"bits": 4, "quant_type": "int4"}, "allowed: nf4, fp4"),
        ({"bits": 4, "lora_enable": False}, "needs --lora_enable True"),
    ],
)
def test_settings_that_cannot_work(train_flags, tmp_path, changes, words):
    with pytest.raises(SystemExit) as stop:
        train(argv=train_flags(tmp_path / "out", **LORA | changes))
    assert words in str(stop.value)
