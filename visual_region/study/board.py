"""The scores of a study as a board of rows and columns: values, averages, and rows paired with each other."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from llava.eval.scoring.report import Report
from llava.eval.suite.paired import ComparisonError, check_comparable
from visual_region.study import statistics
from visual_region.study.results import CellResult
from visual_region.study.samples import Column, Row, Sample, has_column, rows_of
from visual_region.study.statistics import Estimate

AVERAGE = "average"
BEST, TIED = "best", "tied"


@dataclass(frozen=True)
class Entry:
    """What a table says of one row in one column, or in the average over columns.

    Attributes:
        name: of the column, or `AVERAGE`.
        log: it is of a perplexity.
        is_reference: the row is the one that others are compared with.
        value: in percent for shares; a perplexity as it is.
        difference: to the reference, in points, paired by seed and question; None for a perplexity.
        ratio: to the reference, paired; of the average it is the share that is kept.
        of_whole: the ratio to the reference with the largest share of the data, if the board has several shares.
        mark: `BEST`, `TIED` (cannot be told from the best), or "".
        columns: the names of the columns that it is of.
        kept_over: the columns that `difference` and `ratio` are over: those that the reference has too.
    """

    name: str
    log: bool
    is_reference: bool
    value: Estimate
    difference: Estimate | None
    ratio: Estimate | None
    of_whole: Estimate | None
    mark: str
    columns: tuple[str, ...]
    kept_over: tuple[str, ...]


def reference_name(results: Iterable[CellResult], reference: str | None = None) -> str | None:
    """The row that the others are compared with: by default the first that tunes all layers; None without one."""
    return reference or next((row.name for row in rows_of(results) if row.tunes_all), None)


class Board:
    """Rows by columns; a row is paired with the row `reference` of its share of the data.

    Args:
        results: the cells of the study.
        columns: those of the table; the ones without any score are left out (`absent`).
        experiment: the rows are of the cells of this experiment (default: all cells). The reference may be of another.
        reference: name of a row, which may have no cell yet; default: the one that tunes all layers.
    """

    def __init__(
        self,
        results: Sequence[CellResult],
        columns: Sequence[Column],
        experiment: str | None = None,
        reference: str | None = None,
    ) -> None:
        self.rows = rows_of(results, experiment)
        self.reference = reference_name(results, reference)
        own = {row.share: row for row in self.rows if row.name == self.reference}
        others = {row.share: row for row in rows_of(results) if row.name == self.reference}
        self._references = others | own
        pool = [*self.rows, *(row for row in others.values() if row.share not in own)]
        self.left_out: dict[str, None] = {}
        self._samples: dict[tuple[str, float, Column], Sample] = {}
        for column in columns:
            self._read(column, pool)
        shown = {(row.name, row.share) for row in self.rows}
        have = {column for name, share, column in self._samples if (name, share) in shown}
        self.columns = tuple(column for column in columns if column in have)
        self.absent = tuple(column for column in columns if column not in have)

    def _read(self, column: Column, pool: Sequence[Row]) -> None:
        """Reads the column of every cell. Cells that were scored otherwise than most of them are left out."""
        found: dict[str, tuple[Row, int, Report]] = {}
        for row in sorted(pool, key=lambda row: row.name != self.reference):
            for seed, result in row.cells.items():
                report = result.reports.get(column.benchmark)
                if report is not None and has_column(report, column):
                    found[result.cell.name] = (row, seed, report)
        alike: list[list[str]] = []
        for name, (_, _, report) in found.items():
            group = next((g for g in alike if not _unlike(column, {g[0]: found[g[0]][2], name: report})), None)
            if group is None:
                alike.append(group := [])
            group.append(name)
        most = max(alike, key=len, default=[])
        by_row: dict[tuple[str, float], tuple[Row, dict[int, Report]]] = {}
        for name, (row, seed, report) in found.items():
            if name in most:
                by_row.setdefault((row.name, row.share), (row, {}))[1][seed] = report
            else:
                why = _unlike(column, {most[0]: found[most[0]][2], name: report})
                self.left_out[f"{why}; the score of {name} is left out"] = None
        for key, (row, reports) in by_row.items():
            self._samples[*key, column] = Sample.of(row, column, reports)

    def sample(self, row: Row, column: Column) -> Sample | None:
        """The scores of a row in a column; None if no cell has one."""
        return self._samples.get((row.name, row.share, column))

    def seeds_of(self, row: Row) -> list[int]:
        """The seeds that have a score in some column."""
        samples = [sample for column in self.columns if (sample := self.sample(row, column))]
        return sorted(set().union(*(sample.seeds for sample in samples)))

    @cached_property
    def whole(self) -> Row | None:
        """The reference with the largest share of the data; None if the board has one share only."""
        shares = {row.share for row in self.rows}
        return self._references.get(max(shares)) if len(shares) > 1 else None

    def reference_of(self, row: Row) -> Row | None:
        """The row that this one is compared with."""
        return self._references.get(row.share)

    @cached_property
    def averaged(self) -> tuple[Column, ...]:
        """The columns of the average: not perplexities, and no benchmark whose parts are columns too."""
        whole = {column.benchmark for column in self.columns if column.part}
        logs = {column for (_, _, column), sample in self._samples.items() if sample.log or not sample.share}
        return tuple(c for c in self.columns if c not in logs and (c.part or c.benchmark not in whole))

    @property
    def names(self) -> list[str]:
        """Of the columns, and `AVERAGE` if there are two or more to average."""
        return [*(column.name for column in self.columns), *([AVERAGE] if len(self.averaged) > 1 else [])]

    @property
    def summary(self) -> str | None:
        """The name of what sums up a row: the average, or the only column that it would be of."""
        return AVERAGE if len(self.averaged) > 1 else next((column.name for column in self.averaged), None)

    def title_of(self, name: str) -> str:
        """The heading of a name of `names`; a part has its benchmark's name too if another has a part of this name."""
        if name == AVERAGE:
            return name
        column = Column.parse(name)
        titles = [other.title for other in (*self.columns, *self.absent)]
        return name if titles.count(column.title) > 1 else column.title

    def is_log(self, column: Column) -> bool:
        """Whether its scores are perplexities."""
        return any(sample.log for (_, _, own), sample in self._samples.items() if own == column)

    def value(self, row: Row, columns: Sequence[Column]) -> Estimate | None:
        """The row's average over those of the columns that it has: in percent for shares; None without any."""
        samples = [sample for column in columns if (sample := self.sample(row, column))]
        return _value(samples) if samples else None

    def difference(self, row: Row, other: Row, columns: Sequence[Column]) -> Estimate | None:
        """The average difference in points; of a perplexity that of its log. None if the rows cannot be paired."""
        pair = self._paired(row, other, columns)
        if pair is None:
            return None
        percent = 100 if self.sample(row, columns[0]).share else 1
        return statistics.difference(*pair).scaled(percent)

    def ratio(self, row: Row, other: Row, columns: Sequence[Column]) -> Estimate | None:
        """The ratio of the averages, or of the perplexities; None if the rows cannot be paired."""
        pair = self._paired(row, other, columns)
        if pair is None:
            return None
        if self.sample(row, columns[0]).log:
            ours, theirs = (np.mean([table.mean(1) for table in tables], axis=0) for tables in pair)
            sd = float(np.std(np.exp(ours - theirs), ddof=1)) if len(ours) > 1 else None
            return statistics.difference(*pair).mapped(math.exp, sd)
        return statistics.ratio(*pair)

    def _paired(
        self, row: Row, other: Row, columns: Sequence[Column]
    ) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
        """The scores `(seeds, questions)` of both in each column, for the seeds that both have."""
        ours, theirs = ([self.sample(r, column) for column in columns] for r in (row, other))
        if not columns or None in ours or None in theirs:
            return None
        seeds = _common_seeds([*ours, *theirs])
        tables = [[sample.of_seeds(seeds) for sample in samples] for samples in (ours, theirs)]
        return None if not seeds or any(t is None for one in tables for t in one) else (tables[0], tables[1])

    def entries(self, rows: Sequence[Row]) -> dict[str, dict[str, Entry]]:
        """Row -> column -> what the table says, and -> "average", if there are two columns or more to average.

        `rows`: rows of one share; the best of each column is chosen among them.
        """
        groups = {name: self.averaged if name == AVERAGE else (Column.parse(name),) for name in self.names}
        found: dict[str, dict[str, Entry]] = {row.name: {} for row in rows}
        for name, columns in groups.items():
            marks = self._marks(columns, rows)
            for row in rows:
                if (value := self.value(row, columns)) is not None:
                    found[row.name][name] = self._entry(name, row, columns, value, marks.get(row.name, ""))
        return found

    def _entry(self, name: str, row: Row, columns: Sequence[Column], value: Estimate, mark: str) -> Entry:
        had = self._had(row, columns)
        log, own = self.sample(row, had[0]).log, row.name == self.reference
        entry = Entry(name, log, own, value, None, None, None, mark, tuple(column.name for column in had), ())
        reference = self.reference_of(row)
        both = [] if own or reference is None else self._had(reference, had)
        if (whole := self.whole) and (had_too := self._had(whole, had)):
            entry = replace(entry, of_whole=self.ratio(row, whole, had_too))
        if not both:
            return entry
        difference = None if log else self.difference(row, reference, both)
        ratio = self.ratio(row, reference, both)
        return replace(entry, difference=difference, ratio=ratio, kept_over=tuple(column.name for column in both))

    def _marks(self, columns: Sequence[Column], rows: Sequence[Row]) -> dict[str, str]:
        """Row -> mark, among the rows that have as many of the columns as any."""
        most = max((self._had(row, columns) for row in rows), key=len, default=[])
        values = {row: self.value(row, most) for row in rows if most and self._had(row, columns) == most}
        known = [row for row, value in values.items() if value is not None and not math.isnan(value.value)]
        if len(known) < 2:
            return {}
        sign = -1 if self.sample(known[0], most[0]).log else 1
        best = max(known, key=lambda row: sign * values[row].value)
        marks = {best.name: BEST}
        for row in known:
            if row is best:
                continue
            found = self.difference(row, best, most)
            if found is None:
                self.left_out[f"{row.name} is not compared with the best, {best.name}: no seed has both scores"] = None
            # With seeds that are not the same, a row can even be better than the best on those that both have.
            elif sign * (found.high if sign > 0 else found.low) >= 0 if found.has_interval else sign * found.value >= 0:
                marks[row.name] = TIED
        return marks

    def _had(self, row: Row, columns: Sequence[Column]) -> list[Column]:
        return [column for column in columns if self.sample(row, column)]


def _unlike(column: Column, pair: dict[str, Report]) -> str | None:
    """Why two cells' scores cannot be compared; None if they can."""
    try:
        check_comparable(column.name, pair)
    except ComparisonError as error:
        return str(error)
    ours, theirs = (set(report.parts.get(column.part, ())) for report in pair.values())
    return None if ours == theirs else f"{column.name}: {' and '.join(pair)} have different questions in this part"


def _common_seeds(samples: Sequence[Sample]) -> list[int]:
    """The seeds that all have. The backbone goes with every seed; without another row it is of one."""
    own = [set(sample.seeds) for sample in samples if not sample.seedless]
    return sorted(set.intersection(*own)) if own else [0]


def _value(samples: Sequence[Sample]) -> Estimate | None:
    """The average of one row's samples, in percent for shares; None if no seed has all of them."""
    first, *others = samples
    if not others:
        values = [measure.value for measure in first.own]
        if first.values is None or len(values) == 1:
            found = statistics.of_headlines(values, first.intervals, first.questions)
        elif first.log:
            found = statistics.mean([first.values]).mapped(math.exp, float(np.std(values, ddof=1)))
        else:
            found = statistics.mean([first.values], first.bounded)
        return found.scaled(100) if first.share else found
    seeds = _common_seeds(samples)
    if not seeds:
        return None
    tables = [sample.of_seeds(seeds) for sample in samples]
    if any(table is None for table in tables):
        by_seed = np.mean([sample.headlines_of(seeds) for sample in samples], axis=0)
        sd = float(by_seed.std(ddof=1)) if len(seeds) > 1 else None
        number = sum(sample.questions for sample in samples)
        return Estimate(float(by_seed.mean()), None, None, sd, len(seeds), number, "").scaled(100)
    return statistics.mean(tables, bounded=True).scaled(100)
