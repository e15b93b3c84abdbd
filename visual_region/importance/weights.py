"""A checkpoint's decoder weights, a few tensors at a time, whatever the model's size.

Full checkpoints (safetensors or upstream's .bin, in one file or in shards, under our names or Hugging Face's) and LoRA
folders with their base.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from llava.checkpoint.adapter import Adapter, strip_wrapper_prefix
from llava.checkpoint.folder import Checkpoint, Kind
from llava.checkpoint.hf_llava import our_name
from llava.checkpoint.tensors import Stored
from visual_region.scores import ScoreError

_DERIVED = "rotary_emb.inv_freq"
"""What old checkpoints store besides parameters: it follows from the config."""
_LAYER = re.compile(r"(\d+)\.(.+)")


@dataclass(frozen=True)
class DecoderWeights:
    """Weights of the decoder layers.

    Attributes:
        path: the checkpoint's, for messages.
        layers: for each layer, name inside the layer ("self_attn.q_proj.weight") -> tensor.
        prefix: what precedes the layer's index in our names.
    """

    path: str
    layers: tuple[Mapping[str, Stored], ...]
    prefix: str

    def name(self, layer: int, tensor: str) -> str:
        return f"{self.prefix}{layer}.{tensor}"


def decoder_weights(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> DecoderWeights:
    """The decoder weights of a checkpoint; only headers are read.

    Args:
        dtype: what a LoRA's sums are rounded to: that of the merged checkpoint that it should score as.

    Raises:
        ScoreError: no decoder layers, or no trained ones.
        AdapterError: an adapter of a kind whose weights cannot be added up.
    """
    if checkpoint.kind is Kind.PROJECTOR:
        raise ScoreError(
            f"{checkpoint.name} holds a projector only: its language model is its base's, unchanged; give a checkpoint "
            "whose language model was trained"
        )
    whole = checkpoint.whole
    prefix, depth = f"{whole.family.layer_path}.", whole.depth
    tensors = {our_name(stored.name): stored for stored in whole.tensors if stored.torch_dtype.is_floating_point}
    if not any(name.startswith(prefix) for name in tensors):
        raise ScoreError(f"{whole.path} holds no weights named {prefix}0...; it holds {', '.join(sorted(tensors)[:3])}")
    if checkpoint.adapter is not None:
        tensors |= _changed(checkpoint, checkpoint.adapter, tensors, prefix, dtype)
    by_layer: dict[int, dict[str, Stored]] = {}
    for name in sorted(tensors):
        if name.endswith(_DERIVED) or not name.startswith(prefix):
            continue
        if match := _LAYER.fullmatch(name[len(prefix) :]):
            by_layer.setdefault(int(match[1]), {})[match[2]] = tensors[name]
    if sorted(by_layer) != list(range(depth)):
        raise ScoreError(f"{whole.path} holds weights of layers {sorted(by_layer)}, but its config says {depth} layers")
    return DecoderWeights(checkpoint.name, tuple(by_layer[i] for i in range(depth)), prefix)


def _changed(
    lora: Checkpoint, adapter: Adapter, base: Mapping[str, Stored], prefix: str, dtype: torch.dtype
) -> dict[str, Stored]:
    """The base's tensors that a LoRA folder changes: by its adapter, or as whole tensors."""
    adapter.check_addable(lora.path)
    changed: dict[str, Stored] = {}
    for stored in (*adapter.tensors, *lora.tensors):
        name = strip_wrapper_prefix(stored.name).replace(".base_layer.", ".")
        if name in base:
            changed[name] = stored.renamed(name)
    for module in adapter.modules:
        weight = base.get(f"{module}.weight")
        if weight is None:
            raise ScoreError(f"{lora.path} adapts {module}, which its base does not have")
        if module.startswith(prefix):
            changed[weight.name] = weight.changed(_sum(weight, adapter, module, dtype), dtype)
    return changed


def _sum(weight: Stored, adapter: Adapter, module: str, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """Makes base + scale * B A, summed in float32 and then rounded."""
    return lambda: (weight.tensor().float() + adapter.delta(module)).to(dtype)
