"""Angular distance of parameters with all of a layer's weights as one vector. Large tensors weigh more here.

Not the paper's: its mean over the layer's tensors is `angular-param`. Score files of earlier versions have this metric
under that name (`visual_region.scores`).
"""

from collections.abc import Sequence

from visual_region.importance.metric import ParameterMetric
from visual_region.importance.parameters import LayerSums, angle


def angular_param_vector(sums: Sequence[LayerSums]) -> list[float]:
    """The angle of each layer's vector, in [0, 1]; 0 for a layer of zeros."""
    return [angle(layer.theta2, layer.delta2, layer.product) or 0.0 for layer in sums]


METRIC = ParameterMetric(
    "angular-param-vector",
    "angular distance of parameters, layer as one vector",
    lambda sums: {"values": angular_param_vector(sums), "elements": [layer.elements for layer in sums]},
    unit="angle / π",
)
