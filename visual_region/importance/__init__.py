"""Importance of decoder layers: one metric a file, one pass over the data for all that read data.

Definitions: Wang et al. (ACL 2025), Appendix A. `METRICS` is the table of what can be measured and what each needs.
"""

from dataclasses import dataclass


class ScoreError(ValueError):
    """Layers that cannot be scored, or a score file that does not fit; the message says what to do instead."""


@dataclass(frozen=True)
class Metric:
    """One entry of the table.

    Attributes:
        title: for pictures and tables.
        needs: "states" (samples), "images" (samples with images) or "backbone" (two checkpoints, no samples).
    """

    name: str
    title: str
    needs: str


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("bi", "block influence", "states"),
        Metric("multimodal-bi", "multimodal block influence", "images"),
        Metric("angular", "angular distance of hidden states", "states"),
        Metric("image-attention", "image attention score", "images"),
        Metric("parameter-change", "parameter change ratio", "backbone"),
        Metric("angular-param", "angular distance of parameters", "backbone"),
    )
}
DATA_METRICS = tuple(name for name, metric in METRICS.items() if metric.needs != "backbone")
PARAMETER_METRICS = tuple(name for name, metric in METRICS.items() if metric.needs == "backbone")
