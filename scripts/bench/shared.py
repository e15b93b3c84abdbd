"""What the benchmarks share: ways timed in turn, separate processes and their peak memory, synthetic checkpoints."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass
class Times:
    """Wall-clock and processor seconds of each round. Other programs disturb the processor time less."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    result: Any = None
    """What the way returned in the last round."""


def in_turn(ways: Mapping[str, Callable[[], Any]], rounds: int, device: str | torch.device = "cpu") -> dict[str, Times]:
    """Times of each way in each round. The ways of a round run one after another, so disturbances affect them all."""
    times = {name: Times() for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            wait(device)
            clock, processor = time.perf_counter(), time.process_time()
            times[name].result = way()
            wait(device)
            times[name].clock.append(time.perf_counter() - clock)
            times[name].processor.append(time.process_time() - processor)
    return times


def wait(device: str | torch.device) -> None:
    """Waits until the device has finished."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def median_ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(values, reference, strict=True))


def in_process(file: str, *arguments: object, **environment: str) -> Any:
    """The JSON value that `file` prints last when it runs with these arguments in a new process."""
    command = [sys.executable, file, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | environment)
    return json.loads(done.stdout.splitlines()[-1])


def synthetic_checkpoint(
    folder: Path, gigabytes: float, config: LlamaConfig, model_type: str = "llama", scale: float = 1.0
) -> list[Path]:
    """Writes a folder of random weights with the config's dtype and widths, and as many layers as fit the size.

    All layers have the same values, multiplied by `scale`. A shard has about 2 GB.

    Returns:
        the weight files.
    """
    config.num_hidden_layers = 1
    with torch.device("meta"):
        parameters = dict(LlamaForCausalLM(config).named_parameters())
    generator = torch.Generator().manual_seed(0)
    layer, rest = {}, {}
    for name, parameter in parameters.items():
        part = layer if ".layers.0." in name else rest
        values = torch.randn(parameter.shape, generator=generator) * 0.02 * scale
        part[name.removeprefix("model.layers.0.")] = values.to(config.dtype)
    per_layer, per_end = (sum(tensor.nbytes for tensor in part.values()) for part in (layer, rest))
    depth = max(3, round((gigabytes * 1e9 - per_end) / per_layer))
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


def copy_files(files: Iterable[Path], target: Path) -> None:
    """Copies the files; returns when their data is on disk (fsync)."""
    target.mkdir(exist_ok=True)
    for file in files:
        with open(shutil.copyfile(file, target / f"{file.parent.name}-{file.name}")) as copied:
            os.fsync(copied.fileno())
