"""Angular distance between the hidden states that enter and leave a layer (Gromov et al. 2024; the paper, section 6).

Layers of low distance turn the last token's state least, and are the first to remove.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from visual_region.tuning import decoder_layers


@dataclass(frozen=True)
class AngularScores:
    """`per_sample`: float64 `(samples, layers)`, each value in [0, 1]; 1 means opposite directions."""

    per_sample: torch.Tensor

    @property
    def values(self) -> list[float]:
        """Mean over the samples, one a layer."""
        return self.per_sample.mean(0).tolist()


@torch.no_grad()
def angular_distances(
    model: nn.Module, batches: Iterable[Mapping[str, Any]], layer_path: str = "model.layers"
) -> AngularScores:
    """(1/pi) arccos of the cosine between the last token's states before and after each layer.

    Args:
        batches: keyword arguments of the model's forward, each batch padded on the left, so that the last position
            is every sample's last token.
    """
    layers = decoder_layers(model, layer_path)
    current: list[torch.Tensor] = []

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        entering = args[0] if args else kwargs["hidden_states"]
        leaving = output[0] if isinstance(output, tuple) else output
        cosine = nn.functional.cosine_similarity(entering[:, -1].double(), leaving[:, -1].double(), dim=-1)
        current.append(torch.arccos(cosine.clamp(-1, 1)) / math.pi)

    handles = [layer.register_forward_hook(record, with_kwargs=True) for layer in layers]
    rows: list[torch.Tensor] = []
    try:
        for batch in batches:
            current.clear()
            model(**batch, use_cache=False, logits_to_keep=1)
            rows.append(torch.stack(current, dim=1).cpu())
    finally:
        for handle in handles:
            handle.remove()
    if not rows:
        raise ValueError("no samples were given to score layers on")
    return AngularScores(torch.cat(rows))
