"""Importance of decoder layers (the paper, Appendix A). A new metric is a file with `METRIC`, and a row here."""

from visual_region.importance import (
    angular,
    angular_param,
    angular_param_vector,
    block_influence,
    image_attention,
    multimodal_bi,
    parameter_change,
)
from visual_region.importance.metric import Metric, ParameterMetric, SampleMetric

_MODULES = (
    *(block_influence, multimodal_bi, angular, image_attention),
    *(parameter_change, angular_param, angular_param_vector),
)
METRICS: dict[str, Metric] = {module.METRIC.name: module.METRIC for module in _MODULES}
"""Name -> metric, in the order of tables and pictures."""
SAMPLE_METRICS = {name: metric for name, metric in METRICS.items() if isinstance(metric, SampleMetric)}
PARAMETER_METRICS = {name: metric for name, metric in METRICS.items() if isinstance(metric, ParameterMetric)}
