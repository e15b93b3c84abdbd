"""The decoder weights of full checkpoints (in any format) and of LoRA folders, a few tensors at a time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from llava.checkpoint.merged import merged_tensors
from llava.checkpoint.opened import Checkpoint, Kind
from llava.checkpoint.tensors import Stored
from llava.names import count, listed
from visual_region.scores import ScoreError


@dataclass(frozen=True)
class DecoderWeights:
    """Weights of the decoder layers.

    Attributes:
        layers: for each layer, name inside the layer ("self_attn.q_proj.weight") -> tensor.
        prefix: of our names, up to the layer's index.
    """

    path: str
    layers: tuple[Mapping[str, Stored], ...]
    prefix: str

    def name(self, layer: int, tensor: str) -> str:
        return f"{self.prefix}{layer}.{tensor}"


def decoder_weights(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> DecoderWeights:
    """The decoder weights of a checkpoint, a LoRA's merged in `dtype`; only headers are read.

    Raises:
        ScoreError, AdapterError: no decoder layers, no trained ones, or an adapter that cannot be merged.
    """
    if checkpoint.kind is Kind.PROJECTOR:
        why = "its language model is its base's, unchanged; give a checkpoint with a trained language model"
        raise ScoreError(f"{checkpoint.name} holds a projector only: {why}")
    whole = checkpoint.whole
    prefix, depth = f"{whole.family.layer_path}.", whole.depth
    merged = merged_tensors(checkpoint, dtype)
    tensors = {name: stored for name, stored in merged.items() if stored.torch_dtype.is_floating_point}
    if not any(name.startswith(prefix) for name in tensors):
        raise ScoreError(f"{whole.path} holds no weights named {prefix}0...; it holds {', '.join(sorted(tensors)[:3])}")
    by_layer: dict[int, dict[str, Stored]] = {}
    for name in sorted(tensors):
        match = re.fullmatch(rf"{re.escape(prefix)}(\d+)\.(.+)", name)
        # Old checkpoints contain the rotation's frequencies, which follow from the config.
        if match and not name.endswith("rotary_emb.inv_freq"):
            by_layer.setdefault(int(match[1]), {})[match[2]] = tensors[name]
    if sorted(by_layer) != list(range(depth)):
        held = listed("layer", sorted(by_layer))
        raise ScoreError(f"{whole.path} holds weights of {held}, but its config says {count(depth, 'layer')}")
    return DecoderWeights(checkpoint.name, tuple(by_layer[i] for i in range(depth)), prefix)
