"""The weights of a trained vision tower: finding them in a checkpoint, and loading them.

A frozen tower is read from `mm_vision_tower`. A trained one is part of the checkpoint and replaces it (LLaVA#1533,
Bunny#123).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llava.checkpoint.opened import Checkpoint, CheckpointError
from llava.checkpoint.tensors import Tensors

_PREFIX = "vision_tower.vision_tower."
_LEVEL = "vision_model."
_FLAGS = ("unfreeze_vision_tower", "unfreeze_mm_vision_tower", "continuous_training")
"""Keys in config.json: Bunny's, LLaVA's, and one that Bunny's users add to a merged model."""
TRAINED_TOWER = {"unfreeze_vision_tower": True, "unfreeze_mm_vision_tower": True}
"""What config.json records of a trained tower: both upstreams read the one that they know."""


def record_trained_tower(config: Any, trains: bool) -> None:
    """Records whether the tower was trained, in this run or before."""
    config.unfreeze_vision_tower = trains or tower_was_trained(config.to_dict())
    if config.unfreeze_vision_tower:
        for name, value in TRAINED_TOWER.items():
            setattr(config, name, value)


def tower_was_trained(config: Mapping[str, Any]) -> bool:
    return any(config.get(flag) for flag in _FLAGS)


def trained_tower_files(checkpoint: Checkpoint) -> list[Path]:
    """Files with the checkpoint's (or its base's) trained tower; none if the tower was frozen.

    Raises:
        CheckpointError: the tower was trained, but its weights are missing.
    """
    if not tower_was_trained(checkpoint.own):
        # A LoRA without a config.json, or with a frozen tower, may have a base whose tower was trained.
        return trained_tower_files(checkpoint.base) if checkpoint.base is not None else []
    shards = zip(checkpoint.tensors.files, checkpoint.tensors.shards, strict=True)
    files = [file for file, shard in shards if any(_PREFIX in stored.name for stored in shard)]
    if files:
        return files
    if checkpoint.base is not None and tower_was_trained(checkpoint.base.own):
        return trained_tower_files(checkpoint.base)
    raise CheckpointError(
        f"{checkpoint.path} was trained with its vision tower (config.json says so), but holds no tower weights, and "
        "neither does its base; give --model-base the model that it was trained on"
    )


def read_tower_weights(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """The tower's tensors in checkpoint files, with the names of the tower's own network."""
    tower = (stored for stored in Tensors(files) if _PREFIX in stored.name)
    return {stored.name.split(_PREFIX, 1)[1]: stored.tensor() for stored in tower}


def put_tower_weights(
    network: nn.Module, weights: Mapping[str, torch.Tensor], needed: Iterable[str], source: Path
) -> None:
    """Loads weights, whose names may have a level `vision_model.`; raises `CheckpointError` if they do not fit.

    Only the weights in `needed` must be there: upstream's SigLIP ends at the selected layer.
    """
    own = network.state_dict()
    fitting, unknown = {}, []
    for name, value in weights.items():
        spellings = (name, name.removeprefix(_LEVEL), _LEVEL + name)
        known = next((spelling for spelling in spellings if spelling in own), None)
        if known is None or own[known].shape != value.shape:
            unknown.append(f"{name} {tuple(value.shape)}")
        else:
            fitting[known] = value
    missing = [name for name in needed if name not in fitting]
    if unknown or missing:
        raise CheckpointError(
            f"the trained tower in {source} does not fit this tower: without a place {unknown[:2]}, "
            f"missing {missing[:2]}"
        )
    network.load_state_dict(fitting, strict=False)
