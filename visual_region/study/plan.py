"""PLAN.yaml of a study: what is trained, measured and drawn (docs/studies.md describes the keys)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
        flags, text_flags: of the programs that answer the columns, and the text columns.
    """

    columns: tuple[str, ...] = ()
    text_columns: tuple[str, ...] = ()
    questions: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    text_flags: tuple[str, ...] = ()


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
