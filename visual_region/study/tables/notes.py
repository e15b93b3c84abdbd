"""What a table of scores lacks, and what a reader must know of it."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from llava.eval.scoring.report import Report
from llava.names import agree, count, listed, some
from visual_region.study.board import Board
from visual_region.study.samples import Column, Row

_SEEN = 20
"""Names in one note."""
_NOTICED = 0.01
"""From this share of unreadable replies on, a note names it."""
_SAME: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "batch sizes": lambda run: run.get("batch_size"),
    "numbers of devices": lambda run: run.get("devices", {}).get("number"),
    "number formats": lambda run: run.get("dtype"),
    "versions": lambda run: ", ".join(f"{name} {version}" for name, version in run.get("versions", {}).items()),
    "commits of this project": lambda run: _short_commit(run.get("commit") or ""),
}
"""What the trainings of one table should have in common, read from a run.json."""


def notes(board: Board, paired: bool = True) -> list[str]:
    """One sentence each; `paired`: rows are compared with the reference."""
    return [
        *(_no_reference(board) if paired else []),
        *_missing(board),
        *_seeds(board),
        *(_other_seeds(board) if paired else []),
        *_average(board),
        *_unreadable(board),
        *_equal_layers(board),
        *board.left_out,
        *_unlike(board),
        *_trainings(board),
        *_warnings(board),
    ]


def _no_reference(board: Board) -> list[str]:
    if board.reference is None:
        return ["no row tunes all layers: nothing is compared"]
    without = sorted({row.share for row in board.rows if board.reference_of(row) is None})
    return [f"{board.reference} has no cell with {share:g}% of the data: no comparison there" for share in without]


def _missing(board: Board) -> list[str]:
    found = []
    if board.absent:
        found.append(f"not measured for any row: {some((column.name for column in board.absent), _SEEN)}")
        for benchmark in dict.fromkeys(column.benchmark for column in board.absent if column.part):
            parts = dict.fromkeys(part for report in _reports(board, benchmark) for part in report.parts)
            if parts:
                found.append(f"{benchmark} has the parts {some(parts, _SEEN)}")
    empty, partly = [], defaultdict(list)
    for row in board.rows:
        lacking = {column: _lacking(board, row, column) for column in board.columns}
        if all(len(seeds) == len(row.cells) for seeds in lacking.values()):
            empty.append(_name(row, board))
            continue
        for column, seeds in lacking.items():
            if seeds:
                which = "" if len(seeds) == len(row.cells) else f" ({listed('seed', seeds)})"
                partly[f"{_name(row, board)}{which}"].append(board.title_of(column.name))
    if empty:
        found.append(f"no scores yet: {some(empty, _SEEN)}")
    found += [f"{name} has no score yet in {some(titles, _SEEN)}" for name, titles in partly.items()]
    unfinished = [result.cell.name for row in board.rows for result in row.cells.values() if not result.finished]
    if unfinished:
        found.append(f"not finished: {count(len(unfinished), 'cell')} ({some(unfinished)})")
    return found


def _lacking(board: Board, row: Row, column: Column) -> list[int]:
    """The seeds of a row without a score in a column."""
    sample = board.sample(row, column)
    return [seed for seed in row.cells if sample is None or seed not in sample.seeds]


def _seeds(board: Board) -> list[str]:
    """Rows whose interval does not cover seeds."""
    found = []
    single = [_name(row, board) for row in board.rows if len(board.seeds_of(row)) == 1 and not row.is_backbone]
    if single:
        every = len(single) == len([row for row in board.rows if board.seeds_of(row) and not row.is_backbone])
        which = "every row" if every and len(single) > 1 else some(single, _SEEN)
        found.append(f"one seed, so that the interval covers questions only, not other seeds: {which}")
    if any(row.is_backbone for row in board.rows):
        found.append("the model before the tuning has no seed: its interval covers questions only")
    return found


def _other_seeds(board: Board) -> list[str]:
    """Rows with other seeds than the reference."""
    other = []
    for row in board.rows:
        reference = board.reference_of(row)
        own = board.seeds_of(row)
        if own and reference and not row.is_backbone and own != board.seeds_of(reference):
            other.append(f"{_name(row, board)} ({listed('seed', own)})")
    if not other:
        return []
    has, compared = agree(len(other), "this row has", "these rows have"), agree(len(other), "is", "are")
    return [
        f"{has} other seeds than {board.reference} and {compared} compared with it on the seeds that both have, while "
        f"each average is over all seeds of its row: {some(other, _SEEN)}"
    ]


def _average(board: Board) -> list[str]:
    outside = [board.title_of(column.name) for column in board.columns if column not in board.averaged]
    if len(board.averaged) > 1 and outside:
        return [f"not in the average: {some(outside, _SEEN)}"]
    return []


def _unreadable(board: Board) -> list[str]:
    """The share of the replies that were not read, of each row, where a row has a noticeable one."""
    found = []
    for benchmark in dict.fromkeys(column.benchmark for column in board.columns):
        rates = {}
        for row in board.rows:
            reports = [result.reports[benchmark] for result in row.cells.values() if benchmark in result.reports]
            if reports:
                rates[_name(row, board)] = sum(report.parse_failure_rate for report in reports) / len(reports)
        if any(rate >= _NOTICED for rate in rates.values()):
            each = ", ".join(f"{name} {rate:.0%}" for name, rate in rates.items())
            found.append(f"{benchmark}: replies that are empty or that the rule cannot read: {each}")
    return found


def _equal_layers(board: Board) -> list[str]:
    """Rows that are the same trainings under several names."""
    groups = defaultdict(list)
    for row in board.rows:
        layers = tuple((seed, result.cell.layers) for seed, result in row.cells.items())
        if layers and all(chosen for _, chosen in layers):
            groups[row.share, layers].append(_name(row, board))
    alike = [names for names in groups.values() if len(names) > 1]
    return [f"the same layers and seeds under several names: {some(names, _SEEN)}" for names in alike]


def _unlike(board: Board) -> list[str]:
    """Scores without an interval for pairs, and rows whose seeds tune different layers."""
    found = []
    single = [
        board.title_of(column.name)
        for column in board.columns
        if any((sample := board.sample(row, column)) and sample.values is None for row in board.rows)
    ]
    if single:
        found.append(f"no mean of questions, so that differences and averages have no interval: {some(single, _SEEN)}")
    drawn = [_name(row, board) for row in board.rows if len(board.seeds_of(row)) > 1 and len(row.choices) > 1]
    if drawn:
        found.append(
            f"each seed tunes other layers, and the standard deviation is over these too: {some(drawn, _SEEN)}"
        )
    return found


def _trainings(board: Board) -> list[str]:
    """In what the trainings differ besides their rows, seeds and shares."""
    found = []
    cells = [result for row in board.rows for result in row.cells.values() if result.run]
    for what, read in _SAME.items():
        names = defaultdict(list)
        for result in cells:
            names[read(result.run)].append(result.cell.name)
        if len(names) > 1:
            each = "; ".join(f"{value or 'not recorded'} ({some(cells)})" for value, cells in names.items())
            found.append(f"the cells were trained with different {what}: {each}")
    return found


def _short_commit(commit: str) -> str:
    """The beginning of a commit, with the "+" that says that files of the checkout differed from it."""
    return commit.rstrip("+")[:7] + "+" * commit.endswith("+")


def _warnings(board: Board) -> list[str]:
    """The warnings of the scores' files."""
    columns = dict.fromkeys(column.benchmark for column in board.columns)
    return list(
        dict.fromkeys(f"{name}: {text}" for name in columns for r in _reports(board, name) for text in r.warnings)
    )


def _reports(board: Board, benchmark: str) -> list[Report]:
    cells = [result for row in board.rows for result in row.cells.values()]
    return [result.reports[benchmark] for result in cells if benchmark in result.reports]


def _name(row: Row, board: Board) -> str:
    return row.name if len({other.share for other in board.rows}) == 1 else f"{row.name} at {row.share:g}%"
