"""Weighted average of full checkpoints, one tensor in memory at a time.

Bunny's published models are averages of two merged recipes (its tutorials: 0.5/0.5, 0.3/0.7, 0.42/0.58).
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from llava.checkpoint.opened import Checkpoint, CheckpointError, Kind
from llava.checkpoint.record import joint_record
from llava.checkpoint.tensors import Stored
from llava.checkpoint.write import nbytes_of, write_checkpoint
from llava.model.multimodal_encoder.tower_weights import TRAINED_TOWER, tower_was_trained
from llava.outputs import check_output

_SUM_TOLERANCE = 1e-6


def average_checkpoints(
    checkpoints: Sequence[Checkpoint], weights: Sequence[float] | None, output: str | Path, overwrite: bool = False
) -> None:
    """Writes `sum(weight * tensor)` (float32, cast to the last model's dtype); `weights` None: the plain mean.

    Config, tokenizer and shards are the last model's. `config.json` records the models and their weights under
    `averaged_from`, and the union of their tuned layers.

    Raises:
        CheckpointError: not all full checkpoints of the same tensors.
        ValueError: the weights are not one per model, or do not sum to 1.
        RecordError: different layers were removed from the models.
        OutputError: see `check_output`.
    """
    weights = [1 / len(checkpoints)] * len(checkpoints) if weights is None else list(weights)
    if len(checkpoints) < 2:
        raise ValueError("an average needs two models or more: give --model-paths A B")
    if len(weights) != len(checkpoints) or abs(sum(weights) - 1) > _SUM_TOLERANCE:
        raise ValueError(f"--weights needs {len(checkpoints)} numbers that sum to 1, not {weights}")
    *others, last = checkpoints
    for checkpoint in checkpoints:
        if checkpoint.kind is not Kind.FULL or checkpoint.hf:
            what = "transformers' own LLaVA" if checkpoint.hf else f"a {checkpoint.kind.value} checkpoint"
            raise CheckpointError(f"{checkpoint.path} is {what}; only full (merged) checkpoints can be averaged")
    shapes = {(stored.name, stored.shape) for stored in last.tensors}
    for checkpoint in others:
        differing = sorted(shapes ^ {(stored.name, stored.shape) for stored in checkpoint.tensors})
        if differing:
            raise CheckpointError(
                f"{checkpoint.path} and {last.path} are not of one architecture: {len(differing)} tensors differ "
                f"in name or shape, such as {differing[0][0]} {list(differing[0][1])}"
            )
    shards = [[_average(stored, checkpoints, weights) for stored in shard] for shard in last.tensors.shards]
    sources = [folder for checkpoint in checkpoints for folder in checkpoint.folders]
    check_output(output, sources, nbytes_of(shards), overwrite)
    pairs = zip(checkpoints, weights, strict=True)
    config = last.stored | {"averaged_from": [[checkpoint.name, weight] for checkpoint, weight in pairs]}
    if any(tower_was_trained(checkpoint.stored) for checkpoint in checkpoints):
        # The averaged tower is not the published one, even if only one recipe trained it.
        config |= TRAINED_TOWER
    record = joint_record([checkpoint.record for checkpoint in checkpoints])
    if record.values:
        record.put(config)
    write_checkpoint(last.path, output, shards, config, "averaging")


def _average(stored: Stored, checkpoints: Sequence[Checkpoint], weights: Sequence[float]) -> Stored:
    """The average of one tensor; an integer tensor is the last model's."""
    if not stored.torch_dtype.is_floating_point:
        return stored

    def load() -> torch.Tensor:
        total = torch.zeros(stored.shape)
        for checkpoint, weight in zip(checkpoints, weights, strict=True):
            total += weight * checkpoint.tensors[stored.name].tensor().float()
        return total.to(stored.torch_dtype)

    return stored.changed(load)
