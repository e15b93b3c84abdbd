"""scores.json: what was measured, on which model and data, in a form that `--tune_layers`, `prune` and `select` read.

    {"model", "identity", "run", "num_layers", "region", "backbone", "settings",
     "data": {"file", "sha256", "samples", "with_images", "tokens", ...},
     "samples": [{"id", "tokens": {"image", "prompt", "answer"}}],
     "metrics": {NAME: {"values", "low", "high", "samples", "per_sample", "weights" or "parts"}}}

`run` is a digest of everything that the numbers depend on; it shows that a run is finished. `values`, `low` and `high`
hold one number per layer: the score and its interval. `per_sample` holds one row per sample (null: the sample has no
part in the metric) and `weights` each row's weight in the mean; a metric of `parts` is the mean of those metrics.
One sample gives no interval, and neither do metrics of parameters; these hold how many elements they left out.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llava.checkpoint import identity
from llava.checkpoint.folder import Checkpoint
from llava.files import written_whole
from llava.outputs import FileKind
from visual_region.importance.errors import ScoreError
from visual_region.importance.means import MeanOfMeans, SampleMean, Scores
from visual_region.importance.resampling import CONFIDENCE, interval

SCORES = FileKind("a score file", keys=frozenset({"metrics", "num_layers"}))


@dataclass(frozen=True)
class ScoreFile:
    """A score file that has been read and found whole."""

    path: str
    content: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> "ScoreFile":
        """Raises `ScoreError` for a file that is not a score file."""
        try:
            content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
            depth = content["num_layers"]
            wrong = [name for name, entry in content["metrics"].items() if len(entry["values"]) != depth]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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
        """The metric's entry; raises `ScoreError` that lists the metrics for an unknown one."""
        if metric not in self.content["metrics"]:
            raise ScoreError(f"{self.path} has no metric {metric!r}; it has {', '.join(self.names) or 'none'}")
        return self.content["metrics"][metric]

    def has_samples(self, metric: str) -> bool:
        """Whether the metric was taken over samples, as those of parameters are not."""
        return "parts" in self.entry(metric) or "per_sample" in self.entry(metric)

    def scores(self, metric: str) -> Scores:
        """The metric's samples; raises `ScoreError` for a metric that has none."""
        entry = self.entry(metric)
        if "parts" in entry:
            return MeanOfMeans(tuple(self.scores(part) for part in entry["parts"]))
        if not self.has_samples(metric):
            raise ScoreError(
                f"{metric!r} in {self.path} has no values per sample, so nothing can be said of other samples"
            )
        nothing = [torch.nan] * self.num_layers
        rows = [nothing if row is None else row for row in entry["per_sample"]]
        return SampleMean(torch.tensor(rows, dtype=torch.float64), torch.tensor(entry["weights"], dtype=torch.float64))

    def check_fits(self, checkpoint: Checkpoint) -> None:
        """Raises `ScoreError` unless the scores are of this very checkpoint."""
        if self.content.get("identity") != identity.digest(checkpoint):
            # Before `run` was written, identities were taken from fewer bytes: those cannot be compared.
            old = "" if "run" in self.content else ", or was written before every tensor counted for a model's identity"
            raise ScoreError(
                f"{self.path} holds the scores of another model ({self.content.get('model', 'unknown')}, "
                f"{self.num_layers} layers) than {checkpoint.name}{old}; score this one: python -m visual_region "
                f"score --model-path {checkpoint.name} ..."
            )


def entry_of(scores: Scores, resamples: int, seed: int, parts: tuple[str, ...] = ()) -> dict[str, Any]:
    """One metric of samples, as the file holds it.

    Args:
        parts: names of the metrics whose mean this is.
    """
    per_sample = scores.per_sample
    rows = [None if row.isnan().any() else row.tolist() for row in per_sample]
    samples, bounds = sum(row is not None for row in rows), {}
    if samples > 1:
        low, high = interval(scores, resamples, seed)
        bounds = {"low": low.tolist(), "high": high.tolist(), "confidence": CONFIDENCE}
    return {
        "values": scores.values().tolist(),
        **bounds,
        "samples": samples,
        "per_sample": rows,
        **({"parts": list(parts)} if parts else {"weights": scores.weights.tolist()}),
    }


def write_scores(path: str | Path, content: dict[str, Any]) -> None:
    """Writes the file whole or not at all; raises `ScoreError` for a score that is not a finite number."""
    for name, entry in content["metrics"].items():
        wrong = [i for i, value in enumerate(entry["values"]) if not torch.isfinite(torch.tensor(value))]
        if wrong:
            raise ScoreError(
                f"the {name} of layers {wrong} is not a finite number: hidden states or weights overflowed there. "
                "Score in another --dtype (bf16 or fp32)"
            )
    with written_whole(path) as aside:
        aside.write_text(_readable(content), encoding="utf-8")


def _readable(content: dict[str, Any]) -> str:
    """JSON with a line for each key of the two upper levels: a number a line would hide them in thousands."""

    def lines(value: Any, depth: int) -> str:
        if not depth or not isinstance(value, dict) or not value:
            return json.dumps(value, ensure_ascii=False)
        indent = "  " * (4 - depth)
        rows = [f"{indent}{json.dumps(key)}: {lines(item, depth - 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent[2:]}}}"

    return lines(content, 3) + "\n"
