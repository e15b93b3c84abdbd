"""scores.json: what was measured, on which model and data; `--tune_layers`, `prune` and `select` read it.

    {"model", "identity", "run", "num_layers", "region", "backbone", "settings",
     "data": {"file", "sha256", "samples", "with_images", "captions", "angular_at", "tokens"},
     "samples": [{"id", "tokens": {"image", "prompt", "answer"}}],
     "metrics": {NAME: {"values", "low", "high", "samples", "per_sample", "weights" or "parts"}}}

`run` is a digest of everything that the numbers depend on. `values`, `low` and `high` hold one number per layer: the
score and its interval. `per_sample` holds one row per sample (null: not used by the metric) and `weights` each row's
weight in the mean; a metric with `parts` is the mean of those metrics. One sample has no interval, and metrics of
parameters have none; these hold how many elements they left out.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.names import close, did_you_mean, listed
from llava.outputs import FileKind

if TYPE_CHECKING:
    from visual_region.importance.means import Scores

VECTOR = "angular-param-vector"
SCORES = FileKind("a score file", keys=frozenset({"metrics", "num_layers"}))
# RuntimeError: the home of an unknown ~user, or endless nesting.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)


class ScoreError(ValueError):
    """Layers that cannot be scored, or a score file that does not fit; the message says what to do."""


def _present_names(metrics: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """The entries of a file by the names of today, which are other ones for two metrics of earlier versions.

    - `angular-param` was the angle of a layer's weights as one vector.
    - `angular` of captions was measured at the last image token; its detail `angular-last` is today's `angular`.
    """
    metrics = dict(metrics)
    if "angular-param" in metrics and "tensors" not in metrics["angular-param"]:
        metrics[VECTOR] = metrics.pop("angular-param")
    if data.get("captions") and "angular_at" not in data and "angular" in metrics:
        metrics |= {"angular-image": metrics["angular"], "angular": metrics["angular-last"]}
    return metrics


@dataclass(frozen=True)
class ScoreFile:
    """A complete score file."""

    path: str
    content: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> "ScoreFile":
        """Raises `ScoreError` for a file that is not a score file."""
        try:
            content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
            content["metrics"] = _present_names(content["metrics"], content.get("data") or {})
            depth = content["num_layers"]
            wrong = [name for name, entry in content["metrics"].items() if len(entry["values"]) != depth]
        except _UNREADABLE as error:
            raise ScoreError(f"{path} is not a score file of `python -m visual_region score` ({error})") from error
        if wrong:
            raise ScoreError(f"{path} has {depth} layers, but another number of values in {', '.join(wrong)}")
        return cls(str(path), content)

    @property
    def num_layers(self) -> int:
        return self.content["num_layers"]

    @property
    def names(self) -> list[str]:
        return list(self.content["metrics"])

    def entry(self, metric: str) -> dict[str, Any]:
        """The metric's entry; raises `ScoreError` for an unknown one, with a list of the metrics."""
        if metric not in self.content["metrics"]:
            hint = did_you_mean(*close(metric, self.names))
            if metric == "angular-param" and VECTOR in self.names:
                # `score` writes both. A file with the second alone is an older one, or was asked for it.
                hint = f"; a file that an earlier version wrote has {VECTOR} under that name: score again for the mean"
            raise ScoreError(f"{self.path} has no metric {metric!r}; it has {', '.join(self.names) or 'none'}{hint}")
        return self.content["metrics"][metric]

    def values(self, metric: str) -> list[float]:
        """The metric's score of each layer; raises `ScoreError` unless all are finite numbers."""
        values = self.entry(metric)["values"]
        # NaN has no rank, and an infinite score is an error of the measurement; json reads both.
        numbers = [isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in values]
        if wrong := [layer for layer, good in enumerate(numbers) if not good]:
            where = listed("layer", wrong)
            raise ScoreError(f"{metric!r} in {self.path!r} is not a finite number (NaN, null, ...) at {where}")
        return values

    def has_samples(self, metric: str) -> bool:
        """Whether the metric was measured on samples; those of parameters were not."""
        return "parts" in self.entry(metric) or "per_sample" in self.entry(metric)

    def scores(self, metric: str) -> "Scores":
        """The metric's samples; raises `ScoreError` for a metric that has none."""
        import torch

        from visual_region.importance.means import MeanOfMeans, SampleMean

        entry = self.entry(metric)
        if "parts" in entry:
            return MeanOfMeans(tuple(self.scores(part) for part in entry["parts"]))
        if not self.has_samples(metric):
            raise ScoreError(f"{metric!r} in {self.path} has no values per sample, so it cannot be resampled or drawn")
        nothing = [torch.nan] * self.num_layers
        rows = [nothing if row is None else row for row in entry["per_sample"]]
        return SampleMean(torch.tensor(rows, dtype=torch.float64), torch.tensor(entry["weights"], dtype=torch.float64))

    def check_fits(self, name: str, digest: str) -> None:
        """Raises `ScoreError` unless the scores are of the checkpoint `name` with this digest (`identity.digest`)."""
        if self.content.get("identity") != digest:
            # Files without `run` have identities of another kind, which cannot be compared.
            old = "" if "run" in self.content else ", or was written before every tensor counted for a model's identity"
            scored = f"{self.content.get('model', 'unknown')}, {self.num_layers} layers"
            command = f"python -m visual_region score --model-path {name} ..."
            what = f"holds the scores of another model ({scored}) than {name}{old}"
            raise ScoreError(f"{self.path} {what}; score this one: {command}")
