"""Parameter change ratio: how much training changed a layer's weights, relative to their values before.

The paper, Appendix A: R_i = mean over the layer's parameters of |(theta' - theta) / theta|. Elements with theta = 0 are
left out and counted.
"""

from collections.abc import Sequence

from visual_region.importance.metric import ParameterMetric
from visual_region.importance.parameters import LayerSums


def parameter_change(sums: Sequence[LayerSums]) -> list[float]:
    """R_i of each layer; 0 for a layer all of whose weights were 0."""
    return [layer.ratio / max(layer.elements - layer.zeros, 1) for layer in sums]


METRIC = ParameterMetric(
    "parameter-change",
    "parameter change ratio",
    lambda sums: {
        "values": parameter_change(sums),
        "elements": [layer.elements for layer in sums],
        "left_out": [layer.zeros for layer in sums],
    },
    unit="change / value",
)
