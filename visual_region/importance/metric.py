"""What a metric declares of itself; `visual_region.importance` has the table of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from visual_region.importance.means import Scores
from visual_region.importance.parameters import LayerSums
from visual_region.importance.sweep import Recorder


def _no_details(numbers: torch.Tensor, counts: torch.Tensor) -> Mapping[str, Scores]:
    return {}


@dataclass(frozen=True)
class SampleMetric:
    """A metric of hidden states or attention, measured on samples.

    Attributes:
        name: in score files and on the command line.
        title: for pictures and tables.
        recorder: what is recorded of each layer; metrics with the same recorder share it.
        scores: from the recorder's numbers `(samples, layers, n)` and the tokens per kind `(samples, 3)` to scores.
        details: further scores by name, written next to the metric; takes the same arguments.
        mean_of: the details whose mean the metric is, if it is one (`MeanOfMeans`).
        needs_images: only samples with images have a part in it.
    """

    name: str
    title: str
    recorder: type[Recorder]
    scores: Callable[[torch.Tensor, torch.Tensor], Scores]
    details: Callable[[torch.Tensor, torch.Tensor], Mapping[str, Scores]] = _no_details
    mean_of: tuple[str, ...] = ()
    needs_images: bool = False


@dataclass(frozen=True)
class ParameterMetric:
    """A metric that compares the decoder weights of two checkpoints, without samples.

    Attributes:
        name: in score files and on the command line.
        title: for pictures and tables.
        entry: from the sums over each layer to the metric's entry of a score file: "values", and what was counted.
    """

    name: str
    title: str
    entry: Callable[[Sequence[LayerSums]], dict[str, Any]]


Metric = SampleMetric | ParameterMetric
