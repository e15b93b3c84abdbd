"""The one shape of a score: what every scorer returns, prints and writes as JSON.

The JSON file holds the attributes of `Report` except `replies`, the headline's `value`, `low`, `high` (null without an
interval) and `samples`, `parse_failure_rate`, and the keys of `extra`.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from llava.eval.scoring.pairing import Paired, Reply, model_of
from llava.eval.scoring.statistics import Interval, bootstrap_mean, wilson
from llava.files import write_json
from llava.names import count, some
from llava.tables import text_table

T = TypeVar("T")
_ROUNDING = 1e-12
"""A variance below this is that of equal scores."""


@dataclass(frozen=True)
class Measure:
    """A metric's value with its 95% interval (None if it has none) and the number of samples behind it."""

    value: float
    low: float | None
    high: float | None
    samples: int

    @classmethod
    def of(cls, scores: Sequence[float]) -> "Measure":
        """Mean of one score per question: Wilson's interval if all are 0 or 1, the bootstrap's if they differ."""
        if not len(scores):
            raise ValueError("a measure needs at least one sample")
        value = sum(scores) / len(scores)
        if all(score in (0, 1) for score in scores):
            interval = wilson(sum(scores), len(scores))
        else:
            interval = bootstrap_mean(scores) if len(set(scores)) > 1 else None
        return cls.with_interval(value, interval, len(scores))

    @classmethod
    def with_interval(cls, value: float, interval: Interval | None, samples: int) -> "Measure":
        low, high = map(float, interval) if interval else (None, None)
        return cls(float(value), low, high, samples)

    def interval_text(self, scale: float = 1) -> str:
        if self.low is None or self.high is None:
            return "(no interval)"
        return f"({scale * self.low:.2f} to {scale * self.high:.2f})"


@dataclass
class Report:
    """A benchmark's score.

    Attributes:
        metric: name of the headline among `metrics`.
        answers: replies read; more than the samples if several replies make one sample.
        parse_failures: replies that are empty or could not be read.
        per_question: question -> the headline's score; two checkpoints are compared by it.
        groups: kind -> group -> measure.
        parts: part -> ids of its questions; parts share no question. A column of a study's table can be a part.
        details: rules, frames and files that the number depends on.
        unit: "share" of 1, or another.
        extra: further keys of the JSON file, which only this benchmark has.
        replies: what was scored; they are not written.
    """

    benchmark: str
    metric: str
    metrics: dict[str, Measure]
    answers: int
    parse_failures: int
    per_question: dict[str, float] = field(default_factory=dict)
    groups: dict[str, dict[str, Measure]] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    model: str | None = None
    unit: str = "share"
    extra: dict[str, Any] = field(default_factory=dict, compare=False)
    replies: list[Reply] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def of(
        cls, benchmark: str, paired: Paired, scores: Sequence[float], metrics: Mapping[str, Measure], **changes: Any
    ) -> "Report":
        """The report of paired replies.

        Args:
            scores: the headline's score of each reply.
            metrics: the first is the headline.
            changes: other attributes, or other values than the usual ones.
        """
        usual = {
            "metric": next(iter(metrics)),
            "metrics": dict(metrics),
            "answers": len(paired.answers),
            "parse_failures": sum(not line["text"].strip() for line in paired.answers),
            "per_question": {reply.key: score for reply, score in zip(paired.replies, scores, strict=True)},
            "warnings": list(paired.warnings),
            "model": model_of(paired.answers),
            "replies": paired.replies,
        }
        return cls(benchmark, **usual | changes)

    def __post_init__(self) -> None:
        if self.metric not in self.metrics:
            raise ValueError(f"{self.metric} is not among the metrics {', '.join(self.metrics)}")

    @property
    def headline(self) -> Measure:
        return self.metrics[self.metric]

    @property
    def parse_failure_rate(self) -> float:
        return self.parse_failures / self.answers if self.answers else 0.0

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> "Report":
        """The report that `as_dict` made these values of; raises `KeyError` or `TypeError` for other values."""
        # Older files have no parts.
        values = {"parts": {}, **values}
        own = {f.name: values[f.name] for f in fields(cls) if f.compare}
        own["metrics"] = {name: Measure(**measure) for name, measure in own["metrics"].items()}
        own["groups"] = {kind: {n: Measure(**m) for n, m in groups.items()} for kind, groups in own["groups"].items()}
        report = cls(**own)
        known = {*(f.name for kind in (cls, Measure) for f in fields(kind)), "parse_failure_rate"}
        report.extra = {name: value for name, value in values.items() if name not in known}
        return report

    def scores_of(self, part: str) -> dict[str, float]:
        """Question -> score of one part; raises `ValueError` for a part that the score does not have."""
        if part not in self.parts:
            known = f"it has {', '.join(self.parts)}" if self.parts else "it has no parts"
            raise ValueError(f"the score of {self.benchmark} has no part {part!r}; {known}")
        if lacking := [key for key in self.parts[part] if key not in self.per_question]:
            raise ValueError(f"the score of {self.benchmark} has no score for {some(lacking)} of its part {part}")
        return {key: self.per_question[key] for key in self.parts[part]}

    def as_dict(self) -> dict[str, Any]:
        """What the JSON file holds."""
        written = asdict(replace(self, replies=[]))
        del written["replies"]
        rate = {"parse_failure_rate": self.parse_failure_rate}
        return written | asdict(self.headline) | rate | written.pop("extra")

    def table(self) -> str:
        """The score as lines of text; shares in percent."""
        failures = f"{self.parse_failures} unreadable or empty ({100 * self.parse_failure_rate:.2f}%)"
        lines = [
            f"{self.benchmark}: {count(self.answers, 'answer')}, {failures}",
            *(f"warning: {text}" for text in self.warnings),
        ]
        named = [("* " if name == self.metric else "  ", name, measure) for name, measure in self.metrics.items()]
        for kind, groups in self.groups.items():
            named += [("  ", f"{kind}: {name}", measure) for name, measure in groups.items()]
        scale, sign = (100, "%") if self.unit == "share" else (1, "")
        rows = [
            (mark + name, f"{scale * m.value:.2f}{sign}", m.interval_text(scale), f"of {m.samples}")
            for mark, name, m in named
        ]
        return "\n".join([*lines, text_table(rows, "<><<")])

    def write(self, path: str | Path) -> None:
        write_json(path, self.as_dict())

    def publish(self, path: str | Path) -> None:
        """Prints the table and writes the JSON file."""
        print(self.table())
        self.write(path)
        print(f"score written to {path}")


def read_report(path: str | Path) -> Report:
    """A report from its JSON file; raises `ValueError` for another kind of file."""
    try:
        return Report.of_dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a score written by llava.eval ({error!r})") from error


def report_path(report_file: str | None, result_file: str | Path) -> Path:
    """Where a score goes: what was asked for, else next to the answers as NAME.score.json."""
    return Path(report_file) if report_file else Path(result_file).with_suffix(".score.json")


def by_group(keys: Sequence[str], values: Sequence[T]) -> dict[str, list[T]]:
    """Values of each group, the groups in alphabetical order."""
    groups = defaultdict(list)
    for name, value in zip(keys, values, strict=True):
        groups[name].append(value)
    return dict(sorted(groups.items()))


def group(keys: Sequence[str], scores: Sequence[float]) -> dict[str, Measure]:
    """A measure for each group, by name."""
    return {name: Measure.of(values) for name, values in by_group(keys, scores).items()}


def mean_of_group_means(groups: Mapping[str, Sequence[float]]) -> Measure:
    """Each group weighs the same; the groups are all there are, only their questions are a sample.

    The interval is Wilson's for the number of samples that have the variance of this mean, as for shares in stratified
    samples (Franco et al. 2019, "Comparative study of confidence intervals for proportions in complex sample surveys").
    The mean squared deviation over all groups is added to the sum within each group, so that a group of one question or
    of equal scores has a variance too. (For groups of one question: Cochran's collapsed strata, 1977, section 5A.12,
    rather too wide.) The interval of a bootstrap within such groups has no width.

    Args:
        groups: scores in [0, 1], at least one in each group. Equal scores other than 0 or 1 have no interval.
    """
    arrays = [np.asarray(scores, dtype=np.float64) for _, scores in sorted(groups.items())]
    sizes = np.array([len(scores) for scores in arrays])
    value = float(np.mean([scores.mean() for scores in arrays]))
    within = np.array([((scores - scores.mean()) ** 2).sum() for scores in arrays])
    overall = float(np.mean([((scores - value) ** 2).mean() for scores in arrays]))
    if overall > _ROUNDING:
        scale, variances = value * (1 - value), (within + overall) / sizes**2
    elif value in (0, 1):
        scale, variances = 1, 1 / sizes
    else:
        return Measure(value, None, None, int(sizes.sum()))
    effective = scale * len(arrays) ** 2 / float(variances.sum())
    return Measure.with_interval(value, wilson(value * effective, effective), int(sizes.sum()))
