"""A checkpoint's decoder weights, a few tensors at a time, whatever the model's size.

Full checkpoints (safetensors or upstream's .bin, in one file or in shards, under our names or Hugging Face's) and LoRA
folders with their base. Safetensors are read in pieces through one small buffer rather than mapped: pages of a mapped
file count as the process's memory, so a map of 13 GB is a peak of 13 GB.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from llava.checkpoint.hf_llava import our_name
from llava.checkpoint.old_folder import NON_LORA, Checkpoint, Kind, read_checkpoint
from llava.checkpoint.rewrite import DTYPES, stored_tensors
from llava.families import ModelFamily
from llava.model.builder import family_config, resolve_base, strip_wrapper_prefix
from visual_region.importance import ScoreError

PIECE = 1 << 17
"""Elements in a piece: in float64 a few of them fit into a core's second-level cache."""
_DERIVED = "rotary_emb.inv_freq"
"""What old checkpoints store beside parameters: it follows from the config."""
_LAYER = re.compile(r"(\d+)\.(.+)")


class StoredTensor:
    """A tensor in a file: `shape`, `dtype`, and its values in pieces."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape = shape
        self.dtype = dtype

    def __len__(self) -> int:
        return math.prod(self.shape)

    def pieces(self) -> Iterator[torch.Tensor]:
        """The values in row order, flat, at most `PIECE` at a time; a piece is overwritten by the next."""
        raise NotImplementedError


class FileTensor(StoredTensor):
    """A range of bytes in a safetensors file."""

    def __init__(self, file: Path, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__(shape, dtype)
        self.file = file
        self.start = start

    def pieces(self) -> Iterator[torch.Tensor]:
        buffer = torch.empty(min(len(self), PIECE), dtype=self.dtype)
        raw = memoryview(buffer.view(torch.uint8).numpy())
        with open(self.file, "rb", buffering=0) as file:
            file.seek(self.start)
            for begin in range(0, len(self), PIECE):
                count = min(PIECE, len(self) - begin)
                wanted = raw[: count * buffer.element_size()]
                while wanted:
                    read = file.readinto(wanted)
                    if not read:
                        raise ScoreError(f"{self.file} ended while it was read; was it changed?")
                    wanted = wanted[read:]
                yield buffer[:count]


class MappedTensor(StoredTensor):
    """A tensor of a .bin file, mapped by torch."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__(tuple(tensor.shape), tensor.dtype)
        self.tensor = tensor

    def pieces(self) -> Iterator[torch.Tensor]:
        yield from self.tensor.detach().reshape(-1).split(PIECE)


class AdaptedTensor(StoredTensor):
    """A base's matrix `(out, in)` with its LoRA, base + scale * B A, summed in float32 and then rounded to `dtype`."""

    def __init__(
        self,
        base: StoredTensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        transposed: bool,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(base.shape, dtype)
        self.base, self.a, self.b, self.scale, self.transposed = base, a, b, scale, transposed

    def pieces(self) -> Iterator[torch.Tensor]:
        delta = (self.b.float() @ self.a.float()) * self.scale
        flat = (delta.T if self.transposed else delta).reshape(-1)
        begin = 0
        for piece in self.base.pieces():
            yield (piece.float() + flat[begin : begin + len(piece)]).to(self.dtype)
            begin += len(piece)


@dataclass(frozen=True)
class DecoderWeights:
    """Weights of the decoder layers.

    Attributes:
        layers: for each layer, name inside the layer ("self_attn.q_proj.weight") -> tensor.
        prefix: what stands before the layer's index in our names.
        family: by which the checkpoint was understood.
    """

    path: str
    layers: tuple[Mapping[str, StoredTensor], ...]
    prefix: str
    family: ModelFamily

    def name(self, layer: int, tensor: str) -> str:
        return f"{self.prefix}{layer}.{tensor}"


def open_weights(path: str, model_base: str | None = None, dtype: torch.dtype = torch.float32) -> DecoderWeights:
    """The decoder weights of a checkpoint; only headers are read.

    Args:
        model_base: base of a LoRA folder; default: the one that it records.
        dtype: what a LoRA's sums are rounded to: that of the merged checkpoint that it should score as.

    Raises:
        CheckpointError: the folder is not whole, or a LoRA does not fit its base.
        ScoreError: no decoder layers, or an adapter of a kind whose weights cannot be added up.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.kind is Kind.PROJECTOR:
        raise ScoreError(
            f"{path} holds a projector only: its language model is its base's, unchanged; give a checkpoint whose "
            "language model was trained"
        )
    folder = resolve_base(checkpoint, model_base) if checkpoint.kind is Kind.LORA else checkpoint.path
    family, config = family_config(read_checkpoint(folder).config)
    tensors = _tensors_of(folder)
    prefix = f"{family.layer_path}."
    if not any(name.startswith(prefix) for name in tensors):
        raise ScoreError(f"{folder} holds no weights named {prefix}0...; it holds {', '.join(sorted(tensors)[:3])}")
    if checkpoint.kind is Kind.LORA:
        tensors |= _adapted(checkpoint, tensors, dtype)
    by_layer: dict[int, dict[str, StoredTensor]] = {}
    for name in sorted(tensors):
        if name.endswith(_DERIVED) or not name.startswith(prefix):
            continue
        if match := _LAYER.fullmatch(name[len(prefix) :]):
            by_layer.setdefault(int(match[1]), {})[match[2]] = tensors[name]
    depth = config.num_hidden_layers
    if sorted(by_layer) != list(range(depth)):
        raise ScoreError(f"{path} holds weights of layers {sorted(by_layer)}, but its config says {depth} layers")
    return DecoderWeights(path, tuple(by_layer[i] for i in range(depth)), prefix, family)


def _tensors_of(folder: Path) -> dict[str, StoredTensor]:
    """Our name -> tensor, over all weight files of a full checkpoint."""
    tensors: dict[str, StoredTensor] = {}
    for stored in stored_tensors(folder).values():
        if stored.file is not None:
            if DTYPES[stored.dtype].is_floating_point:
                tensors[our_name(stored.name)] = FileTensor(
                    stored.file, stored.start, stored.shape, DTYPES[stored.dtype]
                )
        else:
            tensors[our_name(stored.name)] = MappedTensor(stored.load())
    return tensors


def _adapted(checkpoint: Checkpoint, base: Mapping[str, StoredTensor], dtype: torch.dtype) -> dict[str, StoredTensor]:
    """The base's tensors that a LoRA folder changes: by its adapter, or as whole tensors."""
    adapter = checkpoint.adapter or {}
    unknown = [name for name in ("use_dora", "alora_invocation_tokens", "layer_replication") if adapter.get(name)]
    if adapter.get("peft_type", "LORA") != "LORA" or unknown:
        kind = ", ".join(unknown) or adapter.get("peft_type")
        raise ScoreError(
            f"{checkpoint.path} is an adapter with {kind}, whose weights are not a sum; merge it and score the merged "
            "checkpoint"
        )
    file = checkpoint.adapter_weights
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        stored = load_file(file)
    else:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    rest = checkpoint.path / NON_LORA
    if rest.is_file():
        stored |= torch.load(rest, map_location="cpu", weights_only=True)
    named = {strip_wrapper_prefix(name).replace(".base_layer.", "."): tensor for name, tensor in stored.items()}
    changed: dict[str, StoredTensor] = {}
    for name, tensor in named.items():
        module, found, _ = name.partition(".lora_A.")
        if found:
            target = f"{module}.weight"
            if target not in base:
                raise ScoreError(f"{checkpoint.path} adapts {module}, which its base does not have")
            b = named[name.replace(".lora_A.", ".lora_B.")]
            scale = _scale(adapter, module)
            transposed = bool(adapter.get("fan_in_fan_out"))
            changed[target] = AdaptedTensor(base[target], tensor, b, scale, transposed, dtype)
        elif name in base:
            changed[name] = MappedTensor(tensor)
    return changed


def _scale(adapter: Mapping, module: str) -> float:
    """alpha / r of a module, or alpha / sqrt(r) for rank-stabilised LoRA (PEFT's rule, its patterns included)."""

    def of(patterns: str, default: str) -> float:
        for pattern, value in (adapter.get(patterns) or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        return adapter[default]

    rank = of("rank_pattern", "r")
    return of("alpha_pattern", "lora_alpha") / (math.sqrt(rank) if adapter.get("use_rslora") else rank)
