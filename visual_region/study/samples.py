"""What the rows of a study's tables measured in the columns, ready to be averaged and paired."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llava.eval.benchmarks import BY_NAME
from llava.eval.scoring.report import Measure, Report
from llava.eval.scoring.statistics import Interval
from llava.eval.suite.paired import is_mean_of_questions, log_scores
from visual_region.study.results import CellResult

ALL = "all"
"""The selection whose row is the reference of the others."""


class StudyError(ValueError):
    """Cells that do not make a table or a figure; the message says why."""


@dataclass(frozen=True)
class Column:
    """A column of a table: a benchmark, or a part of one."""

    benchmark: str
    part: str = ""

    @classmethod
    def parse(cls, text: str) -> "Column":
        """From BENCHMARK or BENCHMARK/PART."""
        benchmark, slash, part = text.partition("/")
        if not benchmark or (slash and not part):
            raise StudyError(f"{text!r} is no column; write BENCHMARK or BENCHMARK/PART")
        return cls(benchmark, part)

    @property
    def name(self) -> str:
        return f"{self.benchmark}/{self.part}" if self.part else self.benchmark

    @property
    def title(self) -> str:
        """Its heading: the part, or the benchmark's heading in the paper's table."""
        return self.part or (BY_NAME[self.benchmark].column if self.benchmark in BY_NAME else self.benchmark)

    @property
    def is_text(self) -> bool:
        return self.benchmark in BY_NAME and BY_NAME[self.benchmark].text


def columns_of(texts: Iterable[str]) -> tuple[Column, ...]:
    return tuple(dict.fromkeys(map(Column.parse, texts)))


def visual(texts: Iterable[str]) -> tuple[Column, ...]:
    """The columns that are not of text alone."""
    return tuple(column for column in columns_of(texts) if not column.is_text)


@dataclass(frozen=True, eq=False)
class Row:
    """The cells of one row and share of the data, by seed."""

    name: str
    share: float
    cells: Mapping[int, CellResult]

    @cached_property
    def layers(self) -> tuple[int, ...] | None:
        """The tuned layers; None if no cell is trained yet, or if the seeds have different ones."""
        return next(iter(self.choices)) if len(self.choices) == 1 else None

    @cached_property
    def choices(self) -> Mapping[tuple[int, ...], int]:
        """Tuned layers -> the number of seeds that tune these. A cell that is not trained yet does not count."""
        return Counter(result.cell.layers for result in self.cells.values() if result.cell.layers is not None)

    @property
    def number(self) -> int | None:
        """How many layers are tuned; None if it is not known."""
        found = {len(layers) for layers in self.choices}
        return found.pop() if len(found) == 1 else 0 if self.is_backbone else None

    @property
    def depth(self) -> int | None:
        return next((result.cell.depth for result in self.cells.values() if result.cell.depth), None)

    @property
    def selection(self) -> str | None:
        """The text of `--tune_layers` of the first seed; None for the backbone."""
        return next(iter(self.cells.values())).cell.selection

    @property
    def selections(self) -> str | None:
        """The texts of `--tune_layers` of all seeds, each once, joined by "; "; None for the backbone."""
        texts = (result.cell.selection for result in self.cells.values())
        return "; ".join(dict.fromkeys(text for text in texts if text is not None)) or None

    @property
    def is_backbone(self) -> bool:
        """Whether it is the model before the tuning, which has no seed of its own."""
        return self.selection is None

    @property
    def tunes_all(self) -> bool:
        return self.selection == ALL or (self.depth is not None and self.number == self.depth)


def rows_of(results: Iterable[CellResult], experiment: str | None = None) -> list[Row]:
    """The rows of the cells of an experiment (default: of all cells), in the order of the first cell of each.

    Raises:
        StudyError: two cells have the same row, share and seed.
    """
    rows: dict[tuple[str, float], dict[int, CellResult]] = {}
    for result in results:
        cell = result.cell
        if experiment is None or experiment in cell.experiments:
            cells = rows.setdefault((cell.row, cell.share), {})
            if cell.seed in cells:
                raise StudyError(
                    f"the cells {cells[cell.seed].cell.name} and {cell.name} have the same row ({cell.row}), share "
                    f"({cell.share:g}%) and seed ({cell.seed}); rename the row of one of them in the plan"
                )
            cells[cell.seed] = result
    return [Row(name, share, dict(sorted(cells.items()))) for (name, share), cells in rows.items()]


@dataclass(frozen=True, eq=False)
class Sample:
    """A row's scores in a column.

    Attributes:
        seeds: those that were measured, ascending.
        values: float64 `(seeds, questions)`, questions in the order of their ids; None if the score is no mean of
            questions. For a perplexity their mean is its log.
        own: each seed's value with the interval of its score's file.
        log: the score is a perplexity: lower is better, and differences are ratios.
        share: scores are shares of 1.
        seedless: of the backbone, which every seed of another row is paired with.
    """

    seeds: tuple[int, ...]
    values: np.ndarray | None
    own: tuple[Measure, ...]
    log: bool = False
    share: bool = True
    seedless: bool = False

    @classmethod
    def of(cls, row: Row, column: Column, reports: Mapping[int, Report]) -> "Sample":
        """From the reports of the column's benchmark by seed, which were scored on the same questions."""
        first = next(iter(reports.values()))
        log = "pieces" in first.details
        if log or column.part:
            scores = [log_scores(r) if log else r.scores_of(column.part) for r in reports.values()]
        else:
            scores = [r.per_question for r in reports.values()]
        plain = log or bool(column.part) or all(map(is_mean_of_questions, reports.values()))
        keys = sorted(scores[0])
        values = np.array([list(map(one.__getitem__, keys)) for one in scores], dtype=np.float64) if plain else None
        own = [r.headline for r in reports.values()]
        if column.part:
            own = [Measure.of(list(one.values())) for one in scores]
        seedless = row.is_backbone and len(reports) == 1
        return cls(tuple(reports), values, tuple(own), log, first.unit == "share", seedless)

    @property
    def bounded(self) -> bool:
        """Whether the scores lie in [0, 1]."""
        return self.share and not self.log

    @property
    def questions(self) -> int:
        return self.own[0].samples if self.values is None else self.values.shape[1]

    @property
    def intervals(self) -> list[Interval | None]:
        return [None if m.low is None or m.high is None else (m.low, m.high) for m in self.own]

    def of_seeds(self, seeds: Sequence[int]) -> np.ndarray | None:
        """The values of these seeds, `(seeds, questions)`; the backbone's for each of them."""
        return None if self.values is None else self.values[self._places(seeds)]

    def headlines_of(self, seeds: Sequence[int]) -> np.ndarray:
        """The score of each of these seeds, `(seeds,)`."""
        return np.array([measure.value for measure in self.own])[self._places(seeds)]

    def _places(self, seeds: Sequence[int]) -> list[int]:
        return [0 if self.seedless else self.seeds.index(seed) for seed in seeds]


def has_column(report: Report, column: Column) -> bool:
    """Whether a score has any question of the column."""
    return bool(report.parts.get(column.part)) if column.part else report.headline.samples > 0
