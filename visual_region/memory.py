"""Whether a training step fits a device, and which decoder layers must be recomputed so that it does.

An estimate from the config alone, before weights are loaded: weights, gradients and optimizer of visual_region/cost.py,
activations of visual_region/activations.py.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from llava.checkpoint.opened import Checkpoint
from llava.checkpoint.safe import without_code
from llava.model.multimodal_projector.builder import build_vision_projector
from visual_region.activations import ActivationMeter
from visual_region.cost import ModelShape, Recipe, bytes_needed, lowest_with_gradient, trained_parameters
from visual_region.layers import LayerSelection

USABLE = 0.9
"""The share of free memory that an estimate may fill; the rest is for the allocator and for kernels."""
_GATHERED = 1_000_000_000
"""Parameters that ZeRO-3 keeps whole for their next use: `stage3_max_live_parameters` of scripts/zero3.json."""


def shape_and_meter(
    checkpoint: Checkpoint, config: Any, dtype: torch.dtype, lora_dropout: float, **tower: int | None
) -> tuple[ModelShape, ActivationMeter]:
    """The sizes of a checkpoint's model with the projector of `config`, and what its activations take.

    `tower`: `tower_flops` and `tower_parameters` of `ModelShape`.
    """
    family = checkpoint.family
    build, language = family.load_model_class(), checkpoint.model_config()
    language.mm_vision_tower = None
    with torch.device("meta"):
        projector, model = build_vision_projector(config), build(language)
    shape = ModelShape.of(model, family.layer_path, projector, **tower)
    return shape, ActivationMeter(build, language, family.layer_path, dtype, lora_dropout)


def tower_cost(tower: Any) -> tuple[int | None, int | None]:
    """FLOPs of one image, and parameters, from the tower's config; None if transformers does not know the network."""
    try:
        with torch.device("meta"):
            network = without_code(AutoModel.from_config, tower.cfg_only)
    except ValueError:
        return None, None
    size = tower.cfg_only.image_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops(), sum(p.numel() for p in network.parameters())


@dataclass(frozen=True)
class StepMemory:
    """What one training step takes on one device.

    Attributes:
        recipe: of an average sample of the largest micro-batch.
        rows: samples of a micro-batch.
        weight_bits: of the frozen language model; 8 and 4 for QLoRA.
        zero_stage: of DeepSpeed; 1 shards the optimizer, 2 gradients too, 3 weights too, over `ranks` devices. 0 is
            plain DDP, or DeepSpeed without sharding.
    """

    shape: ModelShape
    meter: ActivationMeter
    selection: LayerSelection | None
    recipe: Recipe
    rows: int
    weight_bits: int = 16
    zero_stage: int = 0
    ranks: int = 1

    def needed(self, recomputed: Collection[int] = ()) -> int:
        """Bytes at the step's highest point, if these layers are recomputed."""
        trained = trained_parameters(self.shape, self.selection, self.recipe)
        parts = bytes_needed(self.shape, trained, self.recipe, self.meter.dtype.itemsize)
        weights = parts.weights
        if self.weight_bits < 16:
            linears = sum(n_in * n_out for layer in self.shape.layers for _, n_in, n_out in layer.linears)
            weights -= linears * self.meter.dtype.itemsize - linears * self.weight_bits // 8
        optimizer, gradients = parts.optimizer, parts.gradients
        # AdamW's own temporary values take as much as the gradients; the activations are gone by then.
        temporary = gradients
        optimizer //= self.ranks if self.zero_stage >= 1 else 1
        temporary //= self.ranks if self.zero_stage >= 1 else 1
        gradients //= self.ranks if self.zero_stage >= 2 else 1
        if self.zero_stage >= 3:
            weights = weights // self.ranks + min(weights, _GATHERED * self.meter.dtype.itemsize)
        if self.zero_stage == 0 and self.ranks > 1:
            # DDP exchanges gradients in buckets, which are a second copy of them.
            gradients *= 2
        # Under ZeRO-3 the head is called once: llava/model/label_loss.py.
        chunked = self.zero_stage < 3
        recipe = replace(self.recipe, cuda_autocast=self.recipe.cuda_autocast and self.zero_stage == 0)
        activations = self.meter.peak(self.shape, self.selection, recipe, self.rows, recomputed, chunked)
        return weights + optimizer + gradients + max(activations, temporary)

    def recomputable(self) -> list[int]:
        """The layers whose activations are kept, those that save most first, deeper ones first among equals."""
        lowest = lowest_with_gradient(self.shape, self.selection, self.recipe)[0]
        tuned = set(self.selection or ())
        return sorted(range(lowest, len(self.shape.layers)), key=lambda i: (i not in tuned, -i))

    def fewest_recomputed(self, free: int) -> tuple[tuple[int, ...], int]:
        """The fewest layers to recompute so that the step fits `free` bytes, and what it takes then.

        All layers that help, if even that does not fit.
        """
        order = self.recomputable()
        takes = [self.needed(order[:count]) for count in range(len(order) + 1)]
        # A single layer saves nothing: while it is recomputed, everything in it exists again.
        count = next((count for count, needed in enumerate(takes) if needed <= USABLE * free), len(order))
        return tuple(sorted(order[:count])), takes[count]
