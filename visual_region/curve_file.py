"""curve.json: benchmarks of checkpoints with decoder layers removed in memory (the paper, section 6 and Figure 4).

    {"dtype", "vision_tower",
     "benchmarks": {NAME: {"files": {FILE: SHA-256}, "flags": {...}, "rule"}},
     "checkpoints": [{"name", "identity", "num_layers", "region", "original", "order": {"by", "layers"},
                      "points": [{"removed", "layers", "ways", "reports": {NAME: REPORT}}]}]}

`benchmarks` holds what the scores depend on besides the checkpoint: the question file (of a part, with --limit), the
annotations, and the flags that are not the defaults. A checkpoint has its path as it was given, the digest of
`llava.checkpoint.identity`, the tuned layers (`region`), the original numbers of its layers if some were removed
before, and the order in which layers are removed: `by` is a metric ("angular": lowest first) or "list".

A point is the model without some layers, which count as in the checkpoint; one without any is the whole model. Points
are measured once for both ways of choosing: "outside" the tuned region, and "anywhere". A region of all layers, or of
none, protects nothing, so both ways are the same. REPORT is a benchmark's score as `llava.eval` writes it
(`llava.eval.scoring.report`): the headline `value`, `low`, `high`, and `per_question`, by which points and checkpoints
are compared in pairs (perplexities: `details.pieces`). A point may lack benchmarks as long as the command runs.

Earlier versions wrote a list of `{"removed", "layers", "protected", "accuracy", "scores"}` for easy-VQA and one
checkpoint, which they did not name. `read_curve` reads it too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llava.eval.scoring.report import Measure, Report
from llava.files import write_json
from llava.outputs import FileKind
from visual_region.scores import ScoreError

OUTSIDE, ANYWHERE = WAYS = ("outside", "anywhere")
LIST = "list"
"""`Order.by` of an order that was given."""
_EARLIER = "easy_vqa"
_OLD_KEYS = {"removed", "protected", "accuracy"}


class _CurveFile(FileKind):
    def recognises(self, path: Path) -> bool:
        return super().recognises(path) or FileKind(self.title, keys=frozenset(_OLD_KEYS)).recognises(path)


CURVE = _CurveFile("a pruning curve", keys=frozenset({"benchmarks", "checkpoints"}))


@dataclass
class Point:
    """The model without `layers`: 0-based, sorted, counted as in the checkpoint."""

    removed: int
    layers: tuple[int, ...]
    ways: tuple[str, ...]
    reports: dict[str, Report] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """The layers in the order of their removal, and what it is by: a metric, or `LIST`."""

    by: str
    layers: tuple[int, ...]


@dataclass
class CheckpointCurve:
    """The points of one checkpoint; files of earlier versions leave name, identity and depth unknown ("" and 0)."""

    name: str = ""
    identity: str = ""
    num_layers: int = 0
    region: tuple[int, ...] = ()
    original: tuple[int, ...] = ()
    order: Order | None = None
    points: list[Point] = field(default_factory=list)

    @property
    def protects(self) -> bool:
        """Whether a region is protected, which one of all layers or none is not; if the depth is unknown, it is."""
        return not self.num_layers or len(self.region) not in (0, self.num_layers)

    def line(self, way: str) -> list[Point]:
        """The points of one way by number of removed layers, from the whole model on; without `protects` all points."""
        points = [point for point in self.points if way in point.ways or not self.protects]
        return sorted(points, key=lambda point: point.removed)


@dataclass
class Curve:
    """The content of a curve.json."""

    dtype: str | None = None
    vision_tower: str | None = None
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    checkpoints: list[CheckpointCurve] = field(default_factory=list)

    def write(self, path: str | Path) -> None:
        write_json(path, {**vars(self), "checkpoints": list(map(_written, self.checkpoints))})


def _written(curve: CheckpointCurve) -> dict[str, Any]:
    points = [{**vars(p), "reports": {name: report.as_dict() for name, report in p.reports.items()}}
              for p in curve.points]  # fmt: skip
    return {**vars(curve), "order": curve.order and asdict(curve.order), "points": points}


def read_curve(path: str | Path) -> Curve:
    """The content of a curve.json, also of an earlier version's; raises `ScoreError` for another file."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(content, list):
            return curve_of_entries(content)
        return Curve(**{**content, "checkpoints": list(map(_read, content["checkpoints"]))})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ScoreError(f"{path} is not a curve of `python -m visual_region curve` ({error})") from error


def _read(values: Mapping[str, Any]) -> CheckpointCurve:
    points = [
        Point(
            removed=point["removed"],
            layers=tuple(point["layers"]),
            ways=tuple(point["ways"]),
            reports={name: Report.of_dict(report) for name, report in point["reports"].items()},
        )
        for point in values["points"]
    ]
    order = values["order"] and Order(values["order"]["by"], tuple(values["order"]["layers"]))
    layers = {name: tuple(values[name]) for name in ("region", "original")}
    return CheckpointCurve(**{**values, **layers, "order": order, "points": points})


def curve_of_entries(entries: Sequence[Mapping[str, Any]]) -> Curve:
    """The points of a list of an earlier version; their reports have no score for each question."""
    if not entries or not all(entry.keys() >= _OLD_KEYS for entry in entries):
        raise ValueError("no points with removed, protected and accuracy")
    points: dict[tuple[int, tuple[int, ...]], Point] = {}
    for entry in entries:
        removed, layers = entry["removed"], tuple(entry.get("layers", ()))
        ways = WAYS if not removed else (OUTSIDE if entry["protected"] else ANYWHERE,)
        # An entry without layers is a point of its own.
        point = points.setdefault((removed, layers or ways), Point(removed, layers, ()))
        point.ways += tuple(way for way in ways if way not in point.ways)
        scores = entry.get("scores") or {}
        low, high = (scores.get("intervals") or {}).get("all") or (None, None)
        asked = scores.get("questions") or 0
        metrics = {"accuracy": Measure(entry["accuracy"], low, high, asked)}
        point.reports[_EARLIER] = Report(_EARLIER, "accuracy", metrics, asked, 0, extra=dict(scores))
    return Curve(benchmarks={_EARLIER: {}}, checkpoints=[CheckpointCurve(points=list(points.values()))])
