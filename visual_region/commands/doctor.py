"""`python -m visual_region doctor`: what is installed, which devices and kernels a run would use, what is missing."""

import argparse
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

import torch

import llava
from llava.devices import device_name, free_memory, has_fast_bfloat16, threads_line
from llava.families import FAMILIES
from llava.files import cache_root
from llava.model.kernels import choose_kernels
from llava.names import size_text
from llava.tables import text_table
from llava.train.attention import choose_attention, describe_attention

REQUIRED = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "pyarrow", "pillow")
OPTIONAL: dict[str, tuple[str, str]] = {
    "deepspeed": ("ZeRO, for models that do not fit one device", "scale"),
    "bitsandbytes": ("QLoRA: --bits 4 and 8", "scale"),
    "wandb": ("--report_to wandb", "scale"),
    "liger-kernel": ("--kernels liger, on a GPU", "kernels"),
    "flash-attn": ("--attn_implementation flash_attention_2, on a GPU", "cuda"),
    "gguf": ("the quickstart's model", "quickstart"),
}
"""Package -> what it is for, and the extra that installs it."""


def run(args: argparse.Namespace) -> None:
    print(f"llava-visual-region {llava.__version__}, in {Path(llava.__file__).parents[1]}")
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {sys.executable}\n")
    rows = [(name, _version(name) or "MISSING: pip install -c constraints.txt -e .") for name in REQUIRED]
    for name, (purpose, extra) in OPTIONAL.items():
        rows.append((name, _version(name) or f"not installed ({purpose}): pip install -e '.[{extra}]'"))
    print(text_table(rows, "<<"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"\n{_devices(device)}")
    dtype = torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    print(_bfloat16_line(device))
    wanted = choose_attention("auto", dtype)
    print(describe_attention("auto", wanted, dtype, padding_free=True, shares=device.type == "cpu"))
    print(choose_kernels("auto", FAMILIES["llava_llama"], device).line)
    if device.type == "cpu":
        print(threads_line())
    print(_cache_line())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices(device: torch.device) -> str:
    if device.type == "cpu":
        return f"device: CPU, {device_name(device)}, {os.cpu_count()} cores, {size_text(free_memory(device))} free"
    found = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    names = [f"{device_name(one)}, {size_text(free_memory(one))} free" for one in found]
    return f"devices: {len(found)} GPU: " + "; ".join(names)


def _bfloat16_line(device: torch.device) -> str:
    if has_fast_bfloat16(device):
        return "dtype: bfloat16 is fast here; train with --bf16 True, evaluate with --dtype bf16"
    instead = "--fp16 True" if device.type == "cuda" else "float32: BF16=False for the scripts, --dtype fp32"
    return f"dtype: bfloat16 is slow here; use {instead}"


def _cache_line() -> str:
    """Where parsed data and features are kept, and whether it can be written."""
    root = cache_root()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    problem = "" if os.access(there, os.W_OK) else "; it CANNOT be written: set LLAVA_CACHE to another folder"
    return f"cache: {root} (LLAVA_CACHE){problem}"
