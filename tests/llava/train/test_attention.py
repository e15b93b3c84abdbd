"""Flash attention where it is installed and able; otherwise torch's own kernels, with the reason."""

import pytest
import torch

from llava.train import attention
from llava.train.attention import choose_attention, describe_attention


@pytest.fixture
def machine(monkeypatch):
    def make(capability, installed):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (capability, 0))
        monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: installed)

    return make


@pytest.mark.parametrize(
    ("capability", "installed", "dtype", "chosen", "reason"),
    [
        (8, True, torch.bfloat16, "flash_attention_2", None),
        (9, True, torch.float16, "flash_attention_2", None),
        (8, False, torch.bfloat16, "sdpa", "not installed"),
        (8, True, torch.float32, "sdpa", "float32"),
        (7, True, torch.float16, "sdpa", "older than Ampere"),
        (None, True, torch.bfloat16, "sdpa", "no GPU"),
    ],
)
def test_auto_and_explicit(machine, capability, installed, dtype, chosen, reason):
    machine(capability, installed)
    assert choose_attention("auto", dtype) == chosen
    line = describe_attention("auto", chosen, dtype, True)
    assert chosen in line
    if reason is None:
        assert choose_attention("flash_attention_2", dtype) == "flash_attention_2"
    else:
        assert reason in line
        with pytest.raises(ValueError, match=f"{reason}.*use sdpa, or auto"):
            choose_attention("flash_attention_2", dtype)
    assert choose_attention("eager", dtype) == "eager"
    assert choose_attention(None, dtype) is None


def test_unknown_name():
    with pytest.raises(ValueError, match="allowed: auto, flash_attention_2, sdpa, eager"):
        choose_attention("flash", torch.bfloat16)


@pytest.mark.parametrize(
    ("chosen", "padding_free", "says"),
    [(None, True, "sdpa; rows without padding"), ("sdpa", False, "padded"), ("eager", True, "eager; rows padded")],
)
def test_padding_is_told(chosen, padding_free, says):
    assert says in describe_attention(chosen, chosen, torch.float32, padding_free)
