"""Angular distance of parameters: the angle between a layer's weights before and after training.

The paper, Appendix A: D_i = (1/pi) arccos(theta' . theta / (|theta'| |theta|)), theta a vector of all parameters.
"""

import math
from collections.abc import Sequence

from visual_region.importance.metric import ParameterMetric
from visual_region.importance.parameters import LayerSums


def angular_param(sums: Sequence[LayerSums]) -> list[float]:
    """D_i of each layer, in [0, 1].

    With theta' = theta + delta, by the tangent: the cosine after fine-tuning differs from 1 in the last digits only.
    """
    across = [math.sqrt(max(layer.theta2 * layer.delta2 - layer.product**2, 0.0)) for layer in sums]
    return [math.atan2(a, layer.theta2 + layer.product) / math.pi for a, layer in zip(across, sums, strict=True)]


METRIC = ParameterMetric(
    "angular-param",
    "angular distance of parameters",
    lambda sums: {"values": angular_param(sums), "elements": [layer.elements for layer in sums]},
)
