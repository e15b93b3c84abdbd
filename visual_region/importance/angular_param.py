"""Angular distance of parameters: the angle by which training turned a layer's weights.

The paper, Appendix A: D_i = (1/pi) arccos(theta' . theta / (|theta'| |theta|)), over all of a layer's parameters as one
vector.
"""

import math
from collections.abc import Sequence

from visual_region.importance.metric import ParameterMetric
from visual_region.importance.parameters import LayerSums


def angular_param(sums: Sequence[LayerSums]) -> list[float]:
    """D_i of each layer, in [0, 1].

    With theta' = theta + delta the angle's tangent needs no difference of nearly equal numbers, whereas the cosine of
    a fine-tuned layer differs from 1 only in its last digits.
    """
    return [
        math.atan2(math.sqrt(max(layer.theta2 * layer.delta2 - layer.product**2, 0.0)), layer.theta2 + layer.product)
        / math.pi
        for layer in sums
    ]


METRIC = ParameterMetric(
    "angular-param",
    "angular distance of parameters",
    lambda sums: {"values": angular_param(sums), "elements": [layer.elements for layer in sums]},
)
