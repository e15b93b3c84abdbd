import pytest
import torch
from peft import PeftModel

from llava.model.builder import load_pretrained_model
from visual_region.layers import LayerSelection
from visual_region.tuning import (
    TuningError,
    apply_lora,
    assert_trains_exactly,
    lora_targets,
    train_layers,
    trained_layers,
)

PATH = "model.layers"


@pytest.fixture
def model(tiny_llava):
    return load_pretrained_model(str(tiny_llava), device="cpu")[1]


def select(spec):
    return LayerSelection.parse(spec, 6)


def test_lora_lands_on_the_selected_layers_and_never_on_the_tower(model):
    """The tower has layers 0, 1 and 2 with q_proj of its own: PEFT's layers_to_transform adapts them too."""
    wrapped = apply_lora(model, select("0,2"), PATH, r=4, lora_alpha=8, lora_dropout=0.0)
    adapted = [name for name, _ in wrapped.named_parameters() if "lora_A" in name]
    assert len(adapted) == 14
    assert not any("vision_tower" in name or "mm_projector" in name for name in adapted)
    assert trained_layers(wrapped, PATH) == (0, 2)


def test_two_digit_layers_are_not_confused(model):
    assert all(".1." in name for name in lora_targets(model, select("1"), PATH))


def test_adapter_folder_reloads(model, tmp_path):
    wrapped = apply_lora(model, select("0,2"), PATH, r=4, lora_alpha=8, lora_dropout=0.0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    ids = torch.tensor([[1, 5, 6]])
    before = wrapped(input_ids=ids).logits
    wrapped.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(wrapped.unload(), str(tmp_path))
    torch.testing.assert_close(again(input_ids=ids).logits, before)


def test_full_tuning_of_layers(model):
    train_layers(model, select("1,4"), PATH)
    assert {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad} == {"1", "4"}
    train_layers(model, select("all"), PATH)
    assert model.lm_head.weight.requires_grad
    assert_trains_exactly(model, range(6), PATH)


def test_disagreement_is_an_error(model):
    train_layers(model, select("1"), PATH)
    with pytest.raises(TuningError, match="layer 1 would train, but layer 2 was asked for"):
        assert_trains_exactly(model, (2,), PATH)
    with pytest.raises(TuningError, match="of 32 layers, the model has 6"):
        train_layers(model, LayerSelection.parse("0", 32), PATH)
