"""What a metric declares; `visual_region.importance` has the table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from visual_region.importance.means import Scores
from visual_region.importance.parameters import LayerSums
from visual_region.importance.sweep import Recorder


@dataclass(frozen=True)
class SampleMetric:
    """A metric of hidden states or attention, measured on samples.

    Attributes:
        name, title, unit: in score files and on the command line; in pictures and tables; on axes.
        recorder: measures each layer; metrics may share one.
        scores: from the recorder's numbers `(samples, layers, n)` and the tokens per kind `(samples, 3)` to scores.
        details: further scores by name, from the same arguments.
        mean_of: the details whose mean the metric is (`MeanOfMeans`).
        needs_images: it uses only samples with images.
    """

    name: str
    title: str
    recorder: type[Recorder]
    scores: Callable[[torch.Tensor, torch.Tensor], Scores]
    details: Callable[[torch.Tensor, torch.Tensor], Mapping[str, Scores]] = lambda numbers, counts: {}
    mean_of: tuple[str, ...] = ()
    needs_images: bool = False
    unit: str = ""


@dataclass(frozen=True)
class ParameterMetric:
    """A metric that compares the decoder weights of two checkpoints.

    `entry` makes the metric's entry of a score file ("values", and what was counted) from the sums of each layer.
    """

    name: str
    title: str
    entry: Callable[[Sequence[LayerSums]], dict[str, Any]]
    unit: str = ""


Metric = SampleMetric | ParameterMetric
