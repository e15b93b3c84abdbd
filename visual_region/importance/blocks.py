"""Angular distance across blocks of consecutive layers, and the block to remove (Gromov et al. 2024).

The distance of a block is the angle between the states that enter its first layer and those that leave its last one,
at the end of the prompt, as a share of pi. Distances are listed by the first layer of the block.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import tqdm

from llava.journal import differences
from llava.names import count, listed
from llava.outputs import FileKind
from visual_region.importance.angular import angle
from visual_region.importance.samples import Reader, SampleSet, groups_of
from visual_region.importance.sweep import Recorder, sweep
from visual_region.importance.tokens import last_positions
from visual_region.surgery import SurgeryError

BLOCK_SCORES = FileKind("a file of block distances", keys=frozenset({"block", "values"}))


class BlockRecorder(Recorder):
    """Distances of blocks of `size` layers: `(batch, layers - size + 1, 1)`."""

    name = "block"

    def __init__(self, size: int) -> None:
        self.size = size

    def begin(self, kinds: torch.Tensor) -> None:
        super().begin(kinds)
        self._places = last_positions(kinds)[:, 0]

    def layer(self, index: int, entering: torch.Tensor, leaving: torch.Tensor) -> None:
        rows, places = torch.arange(len(self._places), device=entering.device), self._places.to(entering.device)
        if not self.rows:
            self.rows.append(entering[rows, places].double().cpu())
        # The model's layers may be on several devices.
        self.rows.append(leaving[rows, places].double().cpu())

    def end(self) -> torch.Tensor:
        states = torch.stack(self.rows, dim=1)
        return angle(states[:, : -self.size], states[:, self.size :]).unsqueeze(-1)


def block_distances(reader: Reader, samples: SampleSet, size: int, layer_path: str, batch_size: int) -> torch.Tensor:
    """Distances of each sample, float64 `(samples, layers - size + 1)`."""
    rows = []
    batches = reader.batches(samples, groups_of(samples, batch_size))
    with tqdm(total=len(samples.indices), desc=f"blocks of {size}", unit="sample") as bar:
        for batch, numbers in sweep(reader.model, batches, [BlockRecorder(size)], layer_path):
            rows.append(numbers[BlockRecorder.name][:, :, 0])
            bar.update(len(batch.samples))
    return torch.cat(rows)


def check_finite(distances: Sequence[float]) -> None:
    """Raises `SurgeryError` for a distance that is not a finite number."""
    if wrong := [i for i, distance in enumerate(distances) if not math.isfinite(distance)]:
        why = "hidden states overflowed there. Measure in another --dtype (bf16 or fp32)"
        raise SurgeryError(f"the distance of the block from {listed('layer', wrong)} on is not a finite number: {why}")


def lowest_block(distances: Sequence[float], size: int, protected: Sequence[int]) -> tuple[int, ...]:
    """The layers of the block of lowest distance without protected layers; raises `SurgeryError` if there is none."""
    free = [i for i in range(len(distances)) if not set(protected) & set(range(i, i + size))]
    if not free:
        longest = longest_stretch(len(distances) + size - 1, protected)
        why = f"the longest stretch has {count(longest, 'layer')}; --anywhere allows the region too"
        raise SurgeryError(f"no block of {count(size, 'layer')} lies outside the protected region: {why}")
    start = min(free, key=distances.__getitem__)
    return tuple(range(start, start + size))


def longest_stretch(depth: int, protected: Sequence[int]) -> int:
    """The largest number of consecutive layers that are not protected."""
    ends = [-1, *sorted(set(protected)), depth]
    return max(b - a - 1 for a, b in itertools.pairwise(ends))


def check_block(size: int, depth: int, protected: Sequence[int]) -> None:
    """Raises `SurgeryError` for a size of blocks that cannot be removed."""
    if not 1 <= size < depth:
        raise SurgeryError(f"--block {size}: a block of a model of {depth} layers has 1 to {depth - 1}")
    lowest_block([0.0] * (depth - size + 1), size, protected)


def read_block_values(
    path: str | Path, size: int, depth: int, identity: str, measured_on: Mapping[str, Any] | None = None
) -> list[float]:
    """The distances in a file of `prune --block-scores`; raises `SurgeryError` if it does not fit.

    `measured_on`: the samples that are asked for, as the file records them in `data`; None: any.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        model, block, values = found["model"], found["block"], found["values"]
        recorded = {"samples": found.get("samples"), **found.get("data", {})}
        whole = all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SurgeryError(f"--block-scores {path} is not a file of block distances ({error}); give another") from error
    if found.get("identity") != identity or block != size:
        instead = f"give another --block-scores to measure blocks of {size} of this model"
        raise SurgeryError(f"{path} holds distances of blocks of {count(block, 'layer')} of {model}; {instead}")
    # Files of earlier versions do not record everything.
    asked = {name: value for name, value in (measured_on or {}).items() if recorded.get(name) is not None}
    if differing := differences({name: recorded[name] for name in asked}, asked):
        raise SurgeryError(
            f"--block-scores {path} was measured on other samples than --data-path gives ({'; '.join(differing)}); "
            "give another --block-scores to measure on these, or leave out --data-path to use the file"
        )
    if not whole or len(values) != depth - size + 1:
        raise SurgeryError(f"--block-scores {path} does not hold {depth - size + 1} finite distances; measure again")
    return values
