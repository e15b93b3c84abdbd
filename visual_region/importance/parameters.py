"""One pass over the decoder weights of two checkpoints, for all metrics that compare parameters."""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch

from llava.checkpoint.tensors import Stored
from visual_region.importance.weights import DecoderWeights
from visual_region.scores import ScoreError

PIECE = 1 << 17
"""Elements in a piece: in float64 a few of them fit into a core's second-level cache."""


@dataclass
class LayerSums:
    """Sums over a layer's elements in float64; theta is the backbone's value, delta the change by training.

    Attributes:
        ratio: sum of |delta / theta| where theta is not 0.
        elements, zeros: number of elements, and of those where theta is 0.
        theta2, delta2, product: sums of theta^2, delta^2 and theta * delta.
        angles: `angle` of each tensor.
    """

    ratio: float = 0.0
    elements: int = 0
    zeros: int = 0
    theta2: float = 0.0
    delta2: float = 0.0
    product: float = 0.0
    angles: list[float | None] = field(default_factory=list)


def angle(theta2: float, delta2: float, product: float) -> float | None:
    """The angle between theta and theta + delta as a share of pi, from the sums; None if one of the two is 0.

    By the tangent: after fine-tuning, the cosine differs from 1 in its last digits only.
    """
    if not theta2 or not theta2 + 2 * product + delta2:
        return None
    return math.atan2(math.sqrt(max(theta2 * delta2 - product**2, 0.0)), theta2 + product) / math.pi


def check_comparable(trained: DecoderWeights, backbone: DecoderWeights) -> None:
    """Raises `ScoreError` that names the first tensor of another shape, before any tensor is read."""
    depths = len(trained.layers), len(backbone.layers)
    deep = f"; they have {depths[0]} and {depths[1]} layers" if depths[0] != depths[1] else ""
    for i, sides in enumerate(itertools.zip_longest(trained.layers, backbone.layers, fillvalue={})):
        for name in sorted({*sides[0], *sides[1]}):
            shapes = [side[name].shape if name in side else "absent" for side in sides]
            if shapes[0] == shapes[1]:
                continue
            raise ScoreError(
                f"{trained.path} and {backbone.path} cannot be compared: {trained.name(i, name)} is {shapes[0]} in the "
                f"first and {shapes[1]} in the second{deep}. Give --backbone the language model that this checkpoint "
                "was trained from"
            )


def compare_layers(trained: DecoderWeights, backbone: DecoderWeights, layers: Iterable[int]) -> Iterator[LayerSums]:
    """The sums of each of these layers; needs the memory of a few pieces and one adapted matrix."""
    theta, delta = torch.empty(PIECE, dtype=torch.float64), torch.empty(PIECE, dtype=torch.float64)
    for i in layers:
        sums = LayerSums()
        for name, ours in trained.layers[i].items():
            _add(sums, _sums(ours, backbone.layers[i][name], theta, delta))
        yield sums


def _add(layer: LayerSums, tensor: LayerSums) -> None:
    """Adds the sums of one tensor to those of its layer."""
    layer.angles.append(angle(tensor.theta2, tensor.delta2, tensor.product))
    for name in ("ratio", "elements", "zeros", "theta2", "delta2", "product"):
        setattr(layer, name, getattr(layer, name) + getattr(tensor, name))


def _sums(ours: Stored, theirs: Stored, theta: torch.Tensor, delta: torch.Tensor) -> LayerSums:
    """The sums of one tensor."""
    sums = LayerSums(elements=theirs.elements)
    for new, old in zip(ours.pieces(PIECE), theirs.pieces(PIECE), strict=True):
        t, d = theta[: len(old)], delta[: len(old)]
        t.copy_(old)
        d.copy_(new).sub_(t)
        sums.theta2 += torch.dot(t, t).item()
        sums.delta2 += torch.dot(d, d).item()
        sums.product += torch.dot(t, d).item()
        zeros = len(t) - int(t.count_nonzero())
        d.div_(t)
        if zeros:
            d.masked_fill_(t == 0, 0.0)
        sums.zeros += zeros
        sums.ratio += d.abs_().sum().item()
    return sums
