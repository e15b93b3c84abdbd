"""Angular distance between the hidden states that enter and leave a layer (Gromov et al. 2024; the paper, section 6).

(1/pi) arccos of the cosine at the last token: of the prompt (`angular`) and of the sample (`angular-last`); see
`tokens.last_positions`. Layers of low distance are the first to remove.
"""

import math

import torch
from torch import nn

from visual_region.importance.means import SampleMean
from visual_region.importance.metric import SampleMetric
from visual_region.importance.sweep import Recorder
from visual_region.importance.tokens import last_positions


class AngleRecorder(Recorder):
    """Angular distance at the end of the prompt and at the end of the sample: `(batch, layers, 2)`, in [0, 1]."""

    name = "angle"

    def begin(self, kinds: torch.Tensor) -> None:
        super().begin(kinds)
        self._places = last_positions(kinds)

    def layer(self, index: int, entering: torch.Tensor, leaving: torch.Tensor) -> None:
        places = self._places.to(entering.device)
        rows = torch.arange(len(places), device=entering.device).unsqueeze(1)
        self.rows.append(angle(entering[rows, places].double(), leaving[rows, places].double()).cpu())


def angle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The angle between vectors `(..., n)` as a share of pi.

    The arccosine would lose half of the digits of nearly parallel vectors, which most layers have.
    """
    a = nn.functional.normalize(a, dim=-1, eps=0.0)
    b = nn.functional.normalize(b, dim=-1, eps=0.0)
    return 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1)) / math.pi


def angular_distance(angles: torch.Tensor, position: int = 0) -> SampleMean:
    """The mean over samples of `AngleRecorder`'s angles `(samples, layers, 2)`.

    `position` is 0 for the end of the prompt, 1 for the end of the sample.
    """
    return SampleMean(angles[:, :, position], torch.ones(len(angles), dtype=torch.float64))


METRIC = SampleMetric(
    "angular",
    "angular distance of hidden states",
    AngleRecorder,
    lambda angles, _: angular_distance(angles),
    details=lambda angles, _: {"angular-last": angular_distance(angles, position=1)},
    unit="angle / π",
)
