"""Activation memory of a training step, measured on the meta device.

What autograd keeps between forward and backward is counted for models of one and of two layers; the difference is one
layer. Attention keeps queries, keys, values, output and one number per row, as fused kernels (sdpa, flash) do.
"""

import contextlib
import copy
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface

from llava.model.label_loss import positions_at_once
from visual_region.cost import ModelShape, Recipe, lowest_with_gradient
from visual_region.layers import LayerSelection
from visual_region.tuning import apply_lora, train_layers

_ATTENTION = "fused_attention_by_shape"
_IN_FLOAT32 = {torch.pow, torch.Tensor.pow, torch.Tensor.__pow__, nn.functional.layer_norm}
"""What decoder layers call of that which CUDA's autocast computes in float32, and a CPU's does not."""


class _Fused(torch.autograd.Function):
    """What fused attention keeps; arguments `(batch, heads, length, size)`."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output, rows = torch.empty_like(query), torch.empty_like(query[..., 0], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, rows)
        return output

    @staticmethod
    def backward(ctx: Any, *grad: torch.Tensor) -> Any:
        raise NotImplementedError("only shapes are measured")


def _attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    return _Fused.apply(query, key, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(_ATTENTION, _attention)


class _CudaAutocast(TorchFunctionMode):
    """CUDA's autocast for tensors on the meta device, which have none (ATen/autocast_mode.h lists its functions)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _IN_FLOAT32:
            dtype = torch.float32
        elif func is nn.functional.linear:
            # The weight has the dtype of the run.
            dtype = args[1].dtype
        else:
            return func(*args, **kwargs)

        def cast(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, torch.Tensor) else value

        return func(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})


def saved_bytes(run: Callable[[], Any], parameters: set[int]) -> int:
    """Bytes that autograd keeps during `run`, each storage once; `parameters` are storages that do not count."""
    kept: dict[int, tuple[int, Any]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            # A reference to the storage, so that its address is not reused.
            kept[storage._cdata] = (storage.nbytes(), storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(size for size, _ in kept.values())


class ActivationMeter:
    """Bytes of activations of one kind of model.

    Args:
        build: makes the language model, without vision modules, from `config`.
        lora_dropout: above 0 it keeps a mask and a copy of each input.
    """

    def __init__(
        self, build: Callable[[Any], nn.Module], config: Any, layer_path: str, dtype: torch.dtype, lora_dropout: float
    ) -> None:
        self.build, self.config, self.layer_path = build, config, layer_path
        self.dtype, self.lora_dropout = dtype, lora_dropout
        self._known: dict[tuple[Any, ...], tuple[int, int]] = {}

    def layer(self, kind: str, recipe: Recipe, rows: int) -> tuple[int, int]:
        """Bytes of one decoder layer, and of what exists only once (rotary tables, final norm), for `rows` samples."""
        key = (kind, recipe.length, recipe.lora_r, recipe.cuda_autocast, rows)
        if key not in self._known:
            one, two = (self._of_model(kind, depth, recipe, rows) for depth in (1, 2))
            self._known[key] = (two - one, 2 * one - two)
        return self._known[key]

    def _of_model(self, kind: str, depth: int, recipe: Recipe, rows: int) -> int:
        config = copy.deepcopy(self.config)
        config.num_hidden_layers = depth
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:1] * depth
        selection = LayerSelection.parse("all", depth)
        with torch.device("meta"):
            model = wrapped = self.build(config).to(self.dtype)
            model.set_attn_implementation(_ATTENTION)
            model.requires_grad_(False)
            if kind == "lora":
                r, dropout = recipe.lora_r, self.lora_dropout
                wrapped = apply_lora(model, selection, self.layer_path, r=r, lora_alpha=r, lora_dropout=dropout)
                wrapped.to(self.dtype)
            elif kind == "full":
                train_layers(model, selection, self.layer_path)
            embeds = torch.empty(rows, recipe.length, config.hidden_size, dtype=self.dtype, requires_grad=True)
        wrapped.train()
        decoder = model.get_submodule(self.layer_path.rpartition(".")[0])
        weights = {p.untyped_storage()._cdata for p in wrapped.parameters()}
        with _CudaAutocast() if recipe.cuda_autocast else contextlib.nullcontext():
            return saved_bytes(lambda: decoder(inputs_embeds=embeds, use_cache=False), weights)

    def peak(
        self,
        shape: ModelShape,
        selection: LayerSelection | None,
        recipe: Recipe,
        rows: int,
        recomputed: Collection[int] = (),
        chunked: bool = True,
    ) -> int:
        """The most bytes of activations during a step of `rows` samples: what is kept, and the head's gradient.

        Args:
            chunked: the logits of many labelled positions are computed in chunks (llava/model/label_loss.py).
        """
        positions = rows * recipe.head_positions
        at_once = positions
        if chunked and recipe.label_only_logits:
            at_once = min(positions, positions_at_once(shape.vocab_size))
        # Logits in the run's dtype, and their gradient in float32. Chunks exist only during the head's backward.
        passing = at_once * (self.dtype.itemsize + 4) - (positions - at_once) * 4
        return self.kept(shape, selection, recipe, rows, recomputed) + passing * shape.vocab_size

    def kept(
        self,
        shape: ModelShape,
        selection: LayerSelection | None,
        recipe: Recipe,
        rows: int,
        recomputed: Collection[int] = (),
    ) -> int:
        """Bytes kept from forward to backward, with the logits of all labelled positions.

        Text-only samples keep nothing in layers with nothing trained in or below them. A layer that is recomputed
        keeps its input, and one of them, while it is recomputed, everything. `recipe.gradient_checkpointing`
        recomputes all layers; else those of `recomputed` are.
        """
        tuned = set(selection or ())
        kind = recipe.mode if recipe.mode in ("lora", "full") else "frozen"
        depth, item = len(shape.layers), self.dtype.itemsize
        once = self.layer("frozen", recipe, rows)[1]
        each = [self.layer(kind if i in tuned else "frozen", recipe, rows)[0] for i in range(depth)]
        lowest = 0 if recipe.gradient_checkpointing else lowest_with_gradient(shape, selection, recipe)[0]
        again = set(range(depth) if recipe.gradient_checkpointing else recomputed)
        its_input = rows * recipe.length * shape.hidden_size * item
        layers = sum(its_input if i in again else each[i] for i in range(lowest, depth))
        layers += max((each[i] for i in again), default=0)
        head = rows * recipe.head_positions * (4 * shape.vocab_size + item * shape.hidden_size)
        projector = sum(n_in + n_out for _, n_in, n_out in shape.projector) if recipe.train_projector else 0
        return layers + once + head + rows * recipe.image_tokens * projector * item
