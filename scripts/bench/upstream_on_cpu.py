"""Runs the trainer of PyPI's llava-torch on a CPU; `beside_upstream.py` starts it with upstream's own Python.

`PYTHON scripts/bench/upstream_on_cpu.py TRAINER_FLAGS`. Upstream's files are not changed. In memory, tensors stay on
the CPU in float32 where upstream asks for CUDA and float16, and its helper for ZeRO-3, which imports DeepSpeed, only
copies.
"""

import os

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true"}

import torch


def _on_cpu(value: object) -> object:
    if value is torch.float16:
        return torch.float32
    if isinstance(value, str) and value.startswith("cuda"):
        return "cpu"
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == "cuda" else value


def _keep_on_cpu(kind: type) -> None:
    original = kind.to

    def to(self: object, *args: object, **kwargs: object) -> object:
        return original(self, *map(_on_cpu, args), **{name: _on_cpu(value) for name, value in kwargs.items()})

    kind.to = to
    kind.cuda = lambda self, *args, **kwargs: self


def _copied(parameter: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
    return parameter.detach().cpu().clone()


if __name__ == "__main__":
    for kind in (torch.Tensor, torch.nn.Module):
        _keep_on_cpu(kind)
    import llava.train.llava_trainer
    import llava.train.train

    llava.train.llava_trainer.maybe_zero_3 = llava.train.train.maybe_zero_3 = _copied
    llava.train.train.train()
