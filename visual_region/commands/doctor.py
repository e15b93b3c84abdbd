"""`python -m visual_region doctor`: what is installed, which devices and kernels a run would use, what is missing."""

import argparse
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import llava
from llava.files import cache_root
from llava.names import size_text
from llava.tables import text_table

REQUIRED = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "pyarrow", "pillow")
OPTIONAL: dict[str, tuple[str, str]] = {
    "deepspeed": ("ZeRO, for models that do not fit one device", "scale"),
    "bitsandbytes": ("QLoRA: --bits 4 and 8", "scale"),
    "wandb": ("--report_to wandb", "trackers"),
    "tensorboard": ("--report_to tensorboard", "trackers"),
    "liger-kernel": ("--kernels liger, on a GPU", "kernels"),
    "flash-attn": ("--attn_implementation flash_attention_2, on a GPU", "cuda"),
    "gradio": ("the page of `python -m visual_region demo`", "demo"),
    "lm-eval": ("our checkpoints in lm-eval", "harness"),
    "lmms-eval": ("our checkpoints in lmms-eval", "harness-images"),
    "gguf": ("the quickstart's model; export --format gguf", "gguf"),
}
"""Package -> what it is for, and the extra that installs it."""


def run(args: argparse.Namespace) -> None:
    print(f"llava-visual-region {llava.__version__}, in {Path(llava.__file__).parents[1]}")
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {sys.executable}\n")
    rows = [(name, _version(name) or "MISSING: pip install -c constraints.txt -e .") for name in REQUIRED]
    for name, (purpose, extra) in OPTIONAL.items():
        rows.append(
            (name, _version(name) or f"not installed ({purpose}): pip install -c constraints.txt -e '.[{extra}]'")
        )
    print(text_table(rows, "<<"))
    try:
        print(f"\n{_what_runs_use()}")
    except ImportError as error:
        print(f"\ntorch cannot be imported ({error}): pip install torch")
    print(_cache_line())


def _what_runs_use() -> str:
    """Devices, dtype, attention, kernels and threads. Imports torch, which may be what is broken."""
    import torch

    from llava.devices import bfloat16_line, has_fast_bfloat16, threads_line
    from llava.families import FAMILIES
    from llava.model.kernels import choose_kernels
    from llava.train.attention import choose_attention, describe_attention

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    on_cpu = device.type == "cpu"
    lines = [
        _devices(device),
        f"dtype: {bfloat16_line(device)}",
        describe_attention("auto", choose_attention("auto", dtype), dtype, padding_free=True, shares=on_cpu),
        choose_kernels("auto", FAMILIES["llava_llama"], device).line,
    ]
    return "\n".join(lines + [threads_line()] * on_cpu)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices(device: Any) -> str:
    import torch

    from llava.devices import device_name, free_memory

    if device.type == "cpu":
        return f"device: CPU, {device_name(device)}, {os.cpu_count()} cores, {size_text(free_memory(device))} free"
    found = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    names = [f"{device_name(one)}, {size_text(free_memory(one))} free" for one in found]
    return f"devices: {len(found)} GPU: " + "; ".join(names)


def _cache_line() -> str:
    """Where parsed data and features are kept, and whether it can be written."""
    root = cache_root()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    problem = "" if os.access(there, os.W_OK) else "; it CANNOT be written: set LLAVA_CACHE to another folder"
    return f"cache: {root} (LLAVA_CACHE){problem}"
