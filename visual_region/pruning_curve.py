"""Measures a pruning curve: benchmarks of checkpoints with layers removed in memory, one model load for each.

`planned` says which layers are removed, `resumed` adds what the file holds already, `measure` does the rest.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from llava.checkpoint.identity import digest
from llava.checkpoint.opened import Checkpoint
from llava.eval.answering.arguments import Loaded
from llava.eval.benchmarks import BY_NAME
from llava.eval.scoring.report import Report
from llava.eval.suite.in_memory import LoadedBenchmark
from llava.families import family_of
from llava.journal import differences
from llava.names import count, listed, short_paths, some
from llava.tables import text_table
from visual_region.curve_file import ANYWHERE, LIST, OUTSIDE, WAYS, CheckpointCurve, Curve, Order, Point, read_curve
from visual_region.surgery import SurgeryError, layers_removed

_MINUTES_FROM = 90
"""Seconds from which an estimate is in minutes."""


@dataclass(frozen=True)
class Task:
    """A checkpoint, its part of the curve, and the points of it that are wanted."""

    checkpoint: Checkpoint
    curve: CheckpointCurve
    points: Sequence[Point]


def planned(checkpoint: Checkpoint, order: Order | None, most: int, ways: Sequence[str] = WAYS) -> CheckpointCurve:
    """The points of a checkpoint, not measured yet: without the first 0 to `most` layers of the order, in each way.

    A region of all layers protects nothing.

    Raises:
        SurgeryError: a way has fewer layers than `most`, or none would remain.
    """
    record = checkpoint.record
    points: dict[tuple[int, ...], Point] = {}
    region = record.region if len(record.region) < record.depth else ()
    for way in ways:
        free = [layer for layer in order.layers if way == ANYWHERE or layer not in region] if order else []
        if most > min(len(free), record.depth - 1):
            where = " outside the tuned region" if way == OUTSIDE and region else ""
            can = f"{len(free)} of {count(record.depth, 'layer')} can be removed{where}"
            if order.by == LIST:
                can = f"--order names {count(len(free), 'layer')}{where}"
            raise SurgeryError(f"--most {most} with {checkpoint.name}: {can}; give a smaller --most or another --where")
        for number in range(most + 1):
            layers = tuple(sorted(free[:number]))
            points.setdefault(layers, Point(number, layers, ())).ways += (way,)
    return CheckpointCurve(
        name=checkpoint.name,
        identity=digest(checkpoint),
        num_layers=record.depth,
        region=record.region,
        original=tuple(record.original) if record.removed else (),
        order=order,
        points=list(points.values()),
    )


def resumed(path: str | Path, plan: Curve) -> Curve:
    """A plan with what the file holds already; further points and benchmarks of the file stay in it.

    Raises:
        SurgeryError: the file is of other checkpoints, questions or settings.
    """
    if not Path(path).is_file() or not Path(path).stat().st_size:
        return plan
    before = read_curve(path)
    if not all(one.identity for one in before.checkpoints):
        print(f"{path} is of an earlier version, which did not record its checkpoint; all points are measured again")
        return plan
    present = {one.identity: one for one in plan.checkpoints}
    found = {one.identity: one for one in before.checkpoints}
    problems = [f"it has another checkpoint, {one.name}" for key, one in found.items() if key not in present]
    problems += differences(*({"dtype": c.dtype, "vision_tower": c.vision_tower} for c in (before, plan)))
    # As they are read from a file.
    now = json.loads(json.dumps(plan.benchmarks))
    for name, then in before.benchmarks.items():
        mine, files = now.get(name, then), then.get("files", {})
        # Earlier versions did not record every file, such as ScienceQA's pid_splits.json.
        known = {file: sha for file, sha in mine.get("files", {}).items() if file in files}
        found_now = {**mine, "files": known}
        problems += [f"{name}: {text}" for text in differences({**then, "files": files}, found_now)]
    for key in [key for key in present if key in found]:
        orders = found[key].order, present[key].order
        if None not in orders and orders[0] != orders[1]:
            problems.append(f"its layers were removed in another order, by {orders[0].by}: {some(orders[0].layers)}")
    if problems:
        why = f"{'; '.join(problems)}; delete it, or give another file"
        raise SurgeryError(f"--output {path} cannot be continued: {why}")
    for key, one in present.items():
        if key in found:
            _join(one, found[key])
    return Curve(plan.dtype, plan.vision_tower, before.benchmarks | plan.benchmarks, plan.checkpoints)


def _join(now: CheckpointCurve, before: CheckpointCurve) -> None:
    """Adds the reports and points of a file."""
    now.order = now.order or before.order
    points = {point.layers: point for point in now.points}
    for old in before.points:
        new = points.get(old.layers)
        if new is None:
            now.points.append(old)
        else:
            new.reports |= old.reports
            new.ways = tuple(way for way in WAYS if way in (*new.ways, *old.ways))


def measure(
    path: str | Path,
    curve: Curve,
    tasks: Sequence[Task],
    benchmarks: Sequence[LoadedBenchmark],
    load: Callable[[Checkpoint], Loaded],
) -> None:
    """Measures what the tasks lack, and writes the curve to `path` after each benchmark of each point.

    Args:
        curve: has the tasks' checkpoints.
        load: called once for each checkpoint of which something is left.
    """
    left = [
        (task, point, benchmark)
        for task in tasks
        for point in task.points
        for benchmark in benchmarks
        if benchmark.name not in point.reports
    ]
    of_all = sum(len(task.points) for task in tasks) * len(benchmarks)
    if len(left) < of_all:
        print(f"{of_all - len(left)} of {count(of_all, 'score')} were measured before", flush=True)
    names = short_paths([task.curve.name for task in tasks])
    spent: dict[str, list[float]] = defaultdict(list)
    loaded: Loaded | None = None
    model = removal = None
    of: Task | None = None
    for place, (task, point, benchmark) in enumerate(left, start=1):
        if task is not of:
            # The model before is freed first: no name may refer to it.
            loaded = model = removal = None
            loaded, of = load(task.checkpoint), task
        begin, model = time.monotonic(), loaded[1]
        removal = layers_removed(model, point.layers, family_of(model.config).layer_path)
        with removal if point.layers else nullcontext():
            report = benchmark.report(task.checkpoint, loaded)
        point.reports[benchmark.name] = report
        curve.write(path)
        spent[benchmark.name].append(time.monotonic() - begin)
        where = f"[{of_all - len(left) + place}/{of_all}] {names[task.curve.name]}, {_removed(point)}"
        estimate = _time_left([other for *_, other in left[place:]], spent, benchmarks)
        print(f"{where}, {benchmark.benchmark.column}: {_score(report)}{estimate}", flush=True)


def _removed(point: Point) -> str:
    if not point.layers:
        return "all layers"
    where = "" if set(point.ways) == set(WAYS) else f" ({point.ways[0]})"
    return f"without {listed('layer', point.layers)}{where}"


def _score(report: Report) -> str:
    """The headline with its interval."""
    scale, sign = (100, "%") if report.unit == "share" else (1, "")
    return f"{scale * report.headline.value:.2f}{sign} {report.headline.interval_text(scale)}"


def _time_left(
    left: Sequence[LoadedBenchmark], spent: Mapping[str, Sequence[float]], benchmarks: Sequence[LoadedBenchmark]
) -> str:
    """An estimate by what each benchmark took before; of one that has not been measured, by its questions."""
    if not left:
        return ""
    asked = sum(len(spent.get(one.name, ())) * len(one) for one in benchmarks)
    rate = sum(map(sum, spent.values())) / asked
    times = [spent.get(one.name) or [rate * len(one)] for one in left]
    seconds = sum(sum(found) / len(found) for found in times)
    text = f"{seconds / 60:.0f} min" if seconds >= _MINUTES_FROM else f"{seconds:.0f} s"
    return f"; about {text} left"


def summary(curve: Curve) -> str:
    """A table: a row for each point, a column for each benchmark."""
    names = short_paths([one.name for one in curve.checkpoints])
    rows = [["", "", *(BY_NAME[name].column if name in BY_NAME else name for name in curve.benchmarks)]]
    for one in curve.checkpoints:
        for point in sorted(one.points, key=lambda point: point.removed):
            found = [point.reports.get(name) for name in curve.benchmarks]
            rows.append([names[one.name], _removed(point), *("" if r is None else _score(r) for r in found)])
    return text_table(rows, "<<" + ">" * len(curve.benchmarks))
