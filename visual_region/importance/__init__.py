"""Importance of decoder layers: one metric per file, one pass over the data for all that read data.

Definitions: Wang et al. (ACL 2025), Appendix A. A new metric is a file that declares `METRIC`, and a row here.
"""

from visual_region.importance import (
    angular,
    angular_param,
    block_influence,
    image_attention,
    multimodal_bi,
    parameter_change,
)
from visual_region.importance.metric import Metric, ParameterMetric, SampleMetric

METRICS: dict[str, Metric] = {
    module.METRIC.name: module.METRIC
    for module in (block_influence, multimodal_bi, angular, image_attention, parameter_change, angular_param)
}
"""Name -> metric, in the order in which they are measured, printed and drawn."""
SAMPLE_METRICS = {name: metric for name, metric in METRICS.items() if isinstance(metric, SampleMetric)}
PARAMETER_METRICS = {name: metric for name, metric in METRICS.items() if isinstance(metric, ParameterMetric)}
