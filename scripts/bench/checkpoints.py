"""Synthetic checkpoints for scripts/bench/prune.py and score.py, and a timed copy to compare with."""

import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig


def synthetic_checkpoint(
    folder: Path, gigabytes: float, config: LlamaConfig, model_type: str = "llama", scale: float = 1.0
) -> list[Path]:
    """Writes a folder of random weights with the config's dtype and widths, and as many layers as fit the size.

    All layers have the same values, multiplied by `scale`. A shard has about 2 GB.

    Returns:
        the weight files.
    """
    hidden, inner, item = config.hidden_size, config.intermediate_size, config.dtype.itemsize
    shapes = {f"self_attn.{name}_proj.weight": (hidden, hidden) for name in "qkvo"}
    shapes |= {"mlp.gate_proj.weight": (inner, hidden), "mlp.up_proj.weight": (inner, hidden)}
    shapes |= {"mlp.down_proj.weight": (hidden, inner), "input_layernorm.weight": (hidden,)}
    shapes |= {"post_attention_layernorm.weight": (hidden,)}
    ends = {name: (config.vocab_size, hidden) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    ends |= {"model.norm.weight": (hidden,)}
    per_layer, per_end = (item * sum(map(_numel, part.values())) for part in (shapes, ends))
    depth = max(3, round((gigabytes * 1e9 - per_end) / per_layer))
    generator = torch.Generator().manual_seed(0)
    layer, rest = (
        {name: (torch.randn(s, generator=generator) * 0.02 * scale).to(config.dtype) for name, s in part.items()}
        for part in (shapes, ends)
    )
    folder.mkdir(parents=True, exist_ok=True)
    weight_map, files, step = {}, [], max(1, int(2e9 // per_layer))
    for start in range(0, depth, step):
        layers = range(start, min(start + step, depth))
        shard = {f"model.layers.{i}.{name}": tensor.clone() for i in layers for name, tensor in layer.items()}
        files.append(folder / f"model-{start:05d}.safetensors")
        shard |= rest if start == 0 else {}
        save_file(shard, files[-1], {"format": "pt"})
        weight_map |= dict.fromkeys(shard, files[-1].name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    values = config.to_dict() | {"model_type": model_type, "num_hidden_layers": depth}
    (folder / "config.json").write_text(json.dumps(values, default=str))
    return files


def copy_files(files: Iterable[Path], target: Path) -> float:
    """Copies the files; returns the seconds until their data is on disk (fsync)."""
    begin = time.perf_counter()
    target.mkdir(exist_ok=True)
    for file in files:
        copied = shutil.copyfile(file, target / f"{file.parent.name}-{file.name}")
        descriptor = os.open(copied, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.perf_counter() - begin


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
