"""Angular distance of parameters: the angles between a layer's tensors before and after training, and their mean.

The paper, Appendix A: D_i = (1/pi) arccos(theta' . theta / (|theta'| |theta|)), "by averaging all parameters within
each layer". Each tensor has the same weight. A tensor of zeros has no angle; it is left out and counted.
"""

from collections.abc import Sequence
from typing import Any

from visual_region.importance.metric import ParameterMetric
from visual_region.importance.parameters import LayerSums


def angular_param(sums: Sequence[LayerSums]) -> list[float]:
    """D_i of each layer, in [0, 1]; 0 for a layer of zeros."""
    angles = [[angle for angle in layer.angles if angle is not None] for layer in sums]
    return [sum(layer) / max(len(layer), 1) for layer in angles]


def _entry(sums: Sequence[LayerSums]) -> dict[str, Any]:
    left_out = [layer.angles.count(None) for layer in sums]
    return {"values": angular_param(sums), "tensors": [len(layer.angles) for layer in sums], "left_out": left_out}


METRIC = ParameterMetric("angular-param", "angular distance of parameters, mean of tensors", _entry, unit="angle / π")
