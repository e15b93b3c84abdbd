"""`python -m visual_region curve`: benchmarks against layers removed (the paper, section 6 and Figure 4).

visual_region/curve_file.py describes the file. It is written after each benchmark of each point, so that an interrupted
run goes on there. Python code uses `visual_region.pruning_curve` and `read_curve`.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import Checkpoint
from llava.eval.answering.arguments import dtype_name, load
from llava.eval.benchmarks import BY_NAME
from llava.eval.suite.in_memory import LoadedBenchmark
from llava.model.builder import checked_device
from llava.names import count, some
from llava.outputs import check_cache, check_files
from visual_region.curve_file import CURVE, LIST, WAYS, Curve, Order
from visual_region.pruning import metric_values
from visual_region.pruning_curve import Task, measure, planned, resumed, summary
from visual_region.surgery import SurgeryError

_SINGLE = ("question_file", "annotation_file", "image_folder")
"""Flags that are of one benchmark."""
_PLACES = ("DATA", "QUESTIONS", "IMAGES")
"""Variables of the scripts that are of one benchmark."""


def run(args: argparse.Namespace) -> None:
    paths, bases = args.model_path, args.model_base or []
    check_files({"--output": (args.output, CURVE)}, [args.question_file, args.annotation_file, *(args.scores or ())])
    check_cache(args.vision_feature_cache, [*paths, *bases, args.vision_tower])
    _check_flags(args)
    checked_device(args.device)
    with tempfile.TemporaryDirectory(prefix="curve-") as folder:
        problems: list[str] = []
        benchmarks: list[LoadedBenchmark] = []
        for name in args.benchmarks:
            with _noted(problems):
                benchmarks.append(_open_benchmark(args, name, Path(folder)))
        checkpoints, curves = [], []
        for i, path in enumerate(paths):
            with _noted(problems):
                base = bases[min(i, len(bases) - 1)] if bases else None
                checkpoint = open_checkpoint(path, base, flag="--model-path")
                for benchmark in benchmarks:
                    benchmark.check(checkpoint)
                order = _order(args, checkpoint, args.scores[i] if args.scores else None)
                ways = WAYS if args.where == "both" else (args.where,)
                curves.append(planned(checkpoint, order, args.most, ways))
                checkpoints.append(checkpoint)
        if len({one.identity for one in curves}) < len(curves):
            problems.append(f"two of the checkpoints {some(paths)} are the same model")
        if problems:
            raise SurgeryError("; ".join(problems))
        wanted = [{point.layers for point in one.points} for one in curves]
        settings = {benchmark.name: benchmark.settings for benchmark in benchmarks}
        curve = resumed(args.output, Curve(dtype_name(args), args.vision_tower, settings, curves))
        tasks = [
            Task(checkpoint, one, [point for point in one.points if point.layers in layers])
            for checkpoint, one, layers in zip(checkpoints, curve.checkpoints, wanted, strict=True)
        ]
        sees = any(benchmark.sees for benchmark in benchmarks)
        measure(args.output, curve, tasks, benchmarks, lambda checkpoint: load(args, checkpoint, sees))
    print(summary(curve))
    print(f"the curve is in {args.output}; `python -m visual_region picture curves {args.output}` draws it")


def _check_flags(args: argparse.Namespace) -> None:
    """Raises `SurgeryError` that lists all flags that do not belong together."""
    paths, scores, bases = args.model_path, args.scores or [], args.model_base or []
    of_one = [f"--{name.replace('_', '-')}" for name in _SINGLE if getattr(args, name)]
    wrong = [name for name, file in _questions(args).items() if name not in args.benchmarks or not file]
    repeated = {name for name in args.benchmarks if args.benchmarks.count(name) > 1}
    checkpoints = count(len(paths), "checkpoint")
    possible = {
        f"--most {args.most}: 0 or more": args.most < 0,
        f"{', '.join(of_one)}: of a single benchmark": of_one and len(args.benchmarks) > 1,
        f"--benchmarks names {some(sorted(repeated))} twice": repeated,
        f"--questions takes NAME=FILE, NAME one of --benchmarks; wrong: {some(wrong)}": wrong,
        "give --scores or --order, by which layers are removed": args.most and not (scores or args.order),
        "give either --scores or --order": scores and args.order,
        f"--scores has {count(len(scores), 'file')} for {checkpoints}": scores and len(scores) != len(paths),
        f"--model-base has {count(len(bases), 'folder')} for {checkpoints}": len(bases) not in (0, 1, len(paths)),
    }
    if problems := [text for text, is_wrong in possible.items() if is_wrong]:
        raise SurgeryError("; ".join(problems))


def _questions(args: argparse.Namespace) -> dict[str, str]:
    """Benchmark -> its question file in --questions."""
    return dict(argument.partition("=")[::2] for argument in args.questions)


def _open_benchmark(args: argparse.Namespace, name: str, folder: Path) -> LoadedBenchmark:
    environment = {key: value for key, value in os.environ.items() if key not in _PLACES}
    if name in (others := _questions(args)):
        environment["QUESTIONS"] = others[name]
    if args.data:
        environment["DATA"] = f"{args.data}/{name}"
    flags = {key: value for key, value in vars(args).items() if value != ""}
    flags |= {"conv_mode": args.conv_mode or environment.get("CONV") or None}
    return LoadedBenchmark.open(BY_NAME[name], environment, flags, args.limit, folder)


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Adds an error to the list instead of raising it."""
    try:
        yield
    except (ValueError, OSError) as error:
        problems.append(str(error))


def _order(args: argparse.Namespace, checkpoint: Checkpoint, scores: str | None) -> Order | None:
    """The order in which layers are removed; raises `ValueError` for scores of another model, or layers not there."""
    if not args.most:
        return None
    if args.order:
        return Order(LIST, _layers(args.order, checkpoint.depth))
    values: Sequence[float] = metric_values(scores, args.metric, checkpoint)
    return Order(args.metric, tuple(sorted(range(len(values)), key=values.__getitem__)))


def _layers(order: str, depth: int) -> tuple[int, ...]:
    words = [word.strip() for word in order.split(",")]
    layers = tuple(int(word) for word in words if word.isdecimal())
    if len(set(layers)) < len(words) or max(layers) >= depth:
        needed = f"layers from 0 to {depth - 1}, each once, joined by commas, the first one first"
        raise SurgeryError(f"--order {order}: {needed}")
    return layers
