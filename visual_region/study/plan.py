"""PLAN.yaml of a study: what is trained, measured and drawn (docs/study.md describes the keys)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visual_region.study.cell import EXPERIMENTS
from visual_region.study.plan_checks import check_plan
from visual_region.study.yaml_file import (
    PlanError,
    Section,
    environment,
    positive,
    read_yaml,
    several,
    text,
    whole,
    with_changes,
    words,
    yes_or_no,
)

BACKBONE = None
"""The selection of the row of the language model before any training."""
MEASURES = ("score", "reversion", "curve", "attention")
"""Keys with flags of commands that measure a cell."""


@dataclass(frozen=True)
class Run:
    """A command of the plan: its words, and the environment variables that it gets besides those of all commands."""

    words: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """Which cells an experiment has: every row with every seed and every share (percent)."""

    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation:
    """How cells are evaluated.

    Attributes:
        columns: of the tables: BENCHMARK, or BENCHMARK/PART.
        text_columns: of the table of text abilities.
        questions: benchmark -> another question file of its folder, without its suffix.
    """

    columns: tuple[str, ...] = ()
    text_columns: tuple[str, ...] = ()
    questions: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What a training costs by the cost model: flags of the command `plan`, for a device of these TFLOP/s.

    `questions`: how many a cell answers, each priced as one forward pass.
    """

    device: str
    flags: tuple[str, ...]
    questions: int = 0


@dataclass(frozen=True)
class Plan:
    """A study.

    Attributes:
        values: the content of the file, with the changes of --set.
        layers: the number of decoder layers of the model, if it is known.
        stages: commands that run once, before the cells.
        rows: name of a row -> text of --tune_layers, which may hold {seed} and {scores}; None: the backbone.
        scores_of: the row whose cells give {scores}.
        score, reversion, curve: flags of these commands; attention: those of `score`, by data set.
        keep_weights: whether the checkpoint of a cell stays when nothing needs it any more.
    """

    file: Path
    values: Mapping[str, Any]
    name: str
    out: Path
    model: str
    tower: str | None
    layers: int | None
    environment: Mapping[str, str]
    stages: Mapping[str, Run]
    train: Run
    rows: Mapping[str, str | None]
    scores_of: str | None
    experiments: Mapping[str, Experiment]
    evaluate: Evaluation
    score: tuple[str, ...] | None
    reversion: tuple[str, ...] | None
    curve: tuple[str, ...] | None
    attention: Mapping[str, tuple[str, ...]]
    keep_weights: bool
    cost: Cost | None

    @property
    def reference(self) -> str | None:
        """The row that tunes all layers, which the others are compared with."""
        return next((row for row, selection in self.rows.items() if selection == "all"), None)


def read_plan(file: str | Path, changes: Iterable[str] = (), out: str | None = None) -> Plan:
    """Reads and checks a plan; no weights are read.

    Args:
        changes: of --set: "KEY.KEY=VALUE".
        out: in place of the plan's own `out`.

    Raises:
        PlanError: everything that is wrong in the file, by the path of its key.
    """
    values = with_changes(read_yaml(file), [*changes, *([f"out={out}"] if out else [])])
    problems: list[str] = []
    plan = _read(Path(file), values, Section(values, problems))
    problems += check_plan(plan)
    if problems:
        lines = "\n".join(f"- {line}" for line in dict.fromkeys(problems))
        raise PlanError(f"plan {file} cannot be run:\n{lines}")
    return plan


def _read(file: Path, values: Mapping[str, Any], top: Section) -> Plan:
    seeds = top.read("seeds", several(whole), (0,))
    shares = top.read("shares", several(_share), (100.0,))
    evaluate, cost = top.section("evaluate"), top.section("cost")
    plan = Plan(
        file=file,
        values=values,
        name=top.read("name", text, file.stem),
        out=Path(top.read("out", text, f"checkpoints/studies/{file.stem}")),
        model=top.read("model", text, "", needed=True),
        tower=top.read("tower", text),
        layers=top.read("layers", whole),
        environment=top.read("environment", environment, {}),
        stages={name: _run(section, "command") for name, section in top.each("stages").items()},
        train=_run(top.section("train"), "script"),
        rows=_rows(top),
        scores_of=top.read("scores_of", text),
        experiments={
            name: Experiment(
                section.read("rows", several(text), (), needed=True),
                section.read("seeds", several(whole), seeds),
                section.read("shares", several(_share), (100.0,) if name != "shares" else shares),
            )
            for name, section in _ended(top.each("experiments", EXPERIMENTS, "experiment"))
        },
        evaluate=Evaluation(
            evaluate.read("columns", several(text), ()),
            evaluate.read("text_columns", several(text), ()),
            evaluate.read("questions", environment, {}),
            evaluate.read("environment", environment, {}),
            evaluate.read("flags", words, ()),
        ),
        score=top.read("score", words),
        reversion=top.read("reversion", words),
        curve=top.read("curve", words),
        attention={name: top.section("attention").read(name, words, ()) for name in top.section("attention").values},
        keep_weights=top.read("keep_weights", yes_or_no, True),
        cost=_cost(cost) if cost.values else None,
    )
    for section in (evaluate, top):
        section.end()
    return plan


def _ended(sections: Mapping[str, Section]) -> Iterable[tuple[str, Section]]:
    for name, section in sections.items():
        yield name, section
        section.end()


def _run(section: Section, key: str) -> Run:
    command = section.read(key, words, (), needed=True)
    run = Run(command, section.read("environment", environment, {}), section.read("flags", words, ()))
    section.end()
    return run


def _rows(top: Section) -> dict[str, str | None]:
    section = top.section("rows")
    if not section.values:
        top.wrong("rows", "is missing: a name for each selection, such as 'all: all' and 'top: top:25%'")
    return {str(name): section.read(name, _selection) for name in section.values}


def _selection(value: Any) -> str | None:
    return value if value is None else text(value)


def _cost(section: Section) -> Cost:
    found = Cost(
        section.read("device", text, "", needed=True),
        section.read("flags", words, (), needed=True),
        section.read("questions", whole, 0),
    )
    section.end()
    return found


def _share(value: Any) -> float:
    share = positive(value)
    if share > 100:
        raise ValueError(f"a share is above 0 and at most 100 percent, not {value!r}")
    return float(share)
