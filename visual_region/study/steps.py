"""The steps of a cell, and the shared stages of a plan, as the commands that a user would type."""

import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from llava.checkpoint.card import RUN_FILE
from llava.eval.benchmarks import BY_NAME
from visual_region.study.cells import WHOLE, PlannedCell, cell_folder
from visual_region.study.plan import Plan
from visual_region.study.plan_checks import filled
from visual_region.study.results import ATTENTION, CURVE_FILE, RESULTS, REVERSION_FILE, SCORES_FILE

TRAIN, SCORE, EVALUATE, TEXT, CURVE = "train", "score", "evaluate", "text", "curve"
STAGES, FEATURES = "stages", "features"
_STEPS_OF = {"selections": EVALUATE, "depths": EVALUATE, "shares": EVALUATE}
"""Experiment -> the step of a cell that it needs besides the training, if it has not the experiment's own name."""
_READ = ("--data-path", "--image-folder", "--text-file", "--question-file", "--annotation-file")
"""Flags of commands that name a file or a folder to read."""


@dataclass(frozen=True)
class Command:
    """Words, and the environment variables that they get besides those of this process."""

    words: tuple[str, ...]
    environment: Mapping[str, str]

    def shell(self) -> str:
        """The command as it can be typed in bash."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join(self.words)])


@dataclass(frozen=True)
class Step:
    """A part of a cell that is run and recorded as a whole.

    Attributes:
        settings: what its results depend on; a study refuses to go on with other ones.
        writes: the files that exist when it is finished.
        of_weights: whether it reads the cell's checkpoint.
    """

    name: str
    commands: tuple[Command, ...]
    settings: Mapping[str, Any]
    writes: tuple[Path, ...] = ()
    of_weights: bool = True


@dataclass(frozen=True)
class Job:
    """What one process runs at a time, in a folder of its own: a cell, or the shared stages."""

    name: str
    folder: Path
    steps: tuple[Step, ...]
    planned: PlannedCell | None = None

    @property
    def checkpoint(self) -> Path:
        return self.folder / TRAIN


def stages_job(plan: Plan) -> Job:
    """The shared stages, each of which runs once."""
    steps = []
    for name, run in plan.stages.items():
        words = tuple(_filled(plan, (*run.words, *run.flags)))
        variables = _environment(plan, run.environment, training=True)
        settings = {"command": [*run.words, *run.flags], **_recorded(plan, run.environment, training=True)}
        # The interpreter of the study takes the place of python.
        command = (_python(), *words[1:]) if words[0] == "python" else words
        steps.append(Step(name, (Command(command, variables),), settings, of_weights=False))
    return Job(STAGES, plan.out / STAGES, tuple(steps))


def job_of(plan: Plan, planned: PlannedCell, only: Iterable[str] | None = None) -> Job:
    """The steps of a cell; `only`: those that these experiments need."""
    cell, folder = planned.cell, cell_folder(plan, planned.name)
    experiments = [name for name in cell.experiments if only is None or name in only]
    wanted = {_STEPS_OF.get(name, name) for name in experiments}
    if planned.gives_scores or CURVE in wanted:
        wanted.add(SCORE)
    steps = [] if cell.selection is None else [_train(plan, planned, folder)]
    makers = {
        SCORE: lambda: _score(plan, folder),
        EVALUATE: lambda: _evaluate(plan, planned, folder, EVALUATE, plan.evaluate.columns),
        TEXT: lambda: _evaluate(plan, planned, folder, TEXT, plan.evaluate.text_columns),
        "reversion": lambda: _reversion(plan, folder),
        CURVE: lambda: _curve(plan, folder),
        "attention": lambda: _attention(plan, folder),
    }
    steps += [make() for name, make in makers.items() if name in wanted]
    return Job(planned.name, folder, tuple(steps), planned)


def benchmarks_of(columns: Iterable[str]) -> list[str]:
    """The benchmarks of columns BENCHMARK or BENCHMARK/PART, each once."""
    return list(dict.fromkeys(column.partition("/")[0] for column in columns))


def _train(plan: Plan, planned: PlannedCell, folder: Path) -> Step:
    cell, run = planned.cell, plan.train
    words = ["bash", *run.words, "--seed", str(cell.seed)]
    if cell.share != WHOLE:
        words += ["--data_share", f"{cell.share:g}%", "--data_seed", str(cell.seed)]
    variables = _environment(plan, run.environment, training=True)
    variables |= {"OUTPUT": str(folder / TRAIN), "TUNE_LAYERS": cell.selection}
    command = Command((*words, *_filled(plan, run.flags)), variables)
    settings = {
        "script": " ".join(run.words),
        "flags": list(run.flags),
        **_recorded(plan, run.environment, training=True),
        "selection": plan.rows[cell.row],
        **({"scores_of": plan.scores_of} if planned.needs else {}),
    }
    return Step(TRAIN, (command,), settings, (folder / RUN_FILE,), of_weights=False)


def _score(plan: Plan, folder: Path) -> Step:
    own = ("--model-path", folder / TRAIN, "--backbone", plan.model, "--output", folder / SCORES_FILE)
    return _measured(plan, SCORE, (_region(plan, "score", own, plan.score),), folder / SCORES_FILE, plan.score)


def _reversion(plan: Plan, folder: Path) -> Step:
    output = folder / REVERSION_FILE
    own = ("--model-path", folder / TRAIN, "--backbone", plan.model, "--output", output)
    return _measured(plan, "reversion", (_region(plan, "perplexity", own, plan.reversion),), output, plan.reversion)


def _curve(plan: Plan, folder: Path) -> Step:
    output = folder / CURVE_FILE
    own = ("--model-path", folder / TRAIN, "--scores", folder / SCORES_FILE, "--output", output)
    return _measured(plan, CURVE, (_region(plan, "curve", own, plan.curve),), output, plan.curve)


def _attention(plan: Plan, folder: Path) -> Step:
    commands, outputs = [], []
    for name, flags in plan.attention.items():
        outputs.append(folder / ATTENTION / f"{name}.json")
        own = ("--model-path", folder / TRAIN, "--metrics", "image-attention", "--output", outputs[-1])
        commands.append(_region(plan, "score", own, flags))
    settings = {name: list(flags) for name, flags in plan.attention.items()}
    return Step("attention", tuple(commands), settings, tuple(outputs))


def _measured(plan: Plan, name: str, commands: tuple[Command, ...], output: Path, flags: Sequence[str]) -> Step:
    return Step(name, commands, {"flags": list(flags), **_recorded(plan, {})}, (output,))


def _region(plan: Plan, command: str, own: Iterable[object], flags: Iterable[str]) -> Command:
    words = (_python(), "-m", "visual_region", command, *map(str, own), *_filled(plan, flags))
    return Command(words, _environment(plan, {}))


def _evaluate(plan: Plan, planned: PlannedCell, folder: Path, name: str, columns: Iterable[str]) -> Step:
    evaluate, benchmarks = plan.evaluate, benchmarks_of(columns)
    flags = evaluate.text_flags if name == TEXT else evaluate.flags
    results = folder / RESULTS
    writes = tuple(results / f"{benchmark}.json" for benchmark in benchmarks)
    # A column that the plan got later is measured alone.
    missing = [b for b, file in zip(benchmarks, writes, strict=True) if not file.is_file()] or benchmarks
    model = plan.model if planned.cell.selection is None else str(folder / TRAIN)
    words = ["bash", "scripts/eval/all.sh", model, "--only", *missing, "--results", str(results), "--require-all"]
    questions = [f"{b}={evaluate.questions[b]}" for b in missing if b in evaluate.questions]
    words += ["--questions", *questions] if questions else []
    # The answers of all studies lie in the benchmarks' folders. Those of one plan differ in their folder.
    variables = _environment(plan, evaluate.environment) | {"NAME": f"{plan.out.resolve().name}-{planned.name}"}
    command = Command((*words, *_filled(plan, flags)), variables)
    # A key for each benchmark, so that a new one is no change.
    asked = {f"questions of {name}": evaluate.questions.get(name) for name in (*benchmarks, *evaluate.questions)}
    settings = {"flags": list(flags), **_recorded(plan, evaluate.environment), **asked}
    return Step(name, (command,), settings, writes, of_weights=planned.cell.selection is not None)


def missing_data(plan: Plan, jobs: Iterable[Job]) -> list[str]:
    """The files and folders that these jobs read and that do not exist."""
    steps = [step for job in jobs for step in job.steps]
    asked = {file.stem for step in steps if step.name in (EVALUATE, TEXT) for file in step.writes}
    missing = []
    for name in filter(asked.__contains__, BY_NAME):
        stem = plan.evaluate.questions.get(name)
        missing += (BY_NAME[name].asking(stem) if stem else BY_NAME[name]).missing_data()
    for words in (command.words for step in steps if step.name != TRAIN for command in step.commands):
        missing += [Path(value) for flag, value in pairwise(words) if flag in _READ and not Path(value).exists()]
    return list(dict.fromkeys(map(str, missing)))


def _python() -> str:
    return os.environ.get("PYTHON") or sys.executable


def places(plan: Plan) -> dict[str, str]:
    """Placeholder -> folder of the study."""
    return {"out": str(plan.out), "stages": str(plan.out / STAGES), "features": str(plan.out / FEATURES)}


def _filled(plan: Plan, words: Iterable[str]) -> list[str]:
    return [filled(word, places(plan)) for word in words]


def _environment(plan: Plan, own: Mapping[str, str], training: bool = False) -> dict[str, str]:
    variables = _recorded(plan, own, training)["environment"]
    return {name: filled(value, places(plan)) for name, value in variables.items()} | {"PYTHON": _python()}


def _recorded(plan: Plan, own: Mapping[str, str], training: bool = False) -> dict[str, dict[str, str]]:
    """The variables as they are recorded: with placeholders, so that the folder of the study can be moved."""
    model = {"MODEL": plan.model, **({"TOWER": plan.tower} if plan.tower else {})} if training else {}
    return {"environment": {**plan.environment, **own, **model}}
