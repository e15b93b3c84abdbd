"""Trains with flash attention where it is installed and able, else with torch's own kernels (sdpa), said aloud."""

import importlib.util

import torch

from llava.train.train import train


def attention() -> str:
    """The attention to use: flash needs its package and an Ampere GPU or later; V100s and CPUs run sdpa."""
    if not torch.cuda.is_available():
        reason = "there is no GPU"
    elif torch.cuda.get_device_capability()[0] < 8:
        reason = "this GPU is older than Ampere"
    elif importlib.util.find_spec("flash_attn") is None:
        reason = "flash-attn is not installed"
    else:
        return "flash_attention_2"
    print(f"attention: sdpa ({reason})")
    return "sdpa"


if __name__ == "__main__":
    train(attn_implementation=attention())
