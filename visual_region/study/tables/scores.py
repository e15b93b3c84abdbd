"""Tables 1 to 4: what every row scored, what it keeps of tuning all layers, and how it differs from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from visual_region.study.board import AVERAGE, Board, Entry
from visual_region.study.samples import Column, Row
from visual_region.study.sentence import is_quarter
from visual_region.study.statistics import Estimate, covers_text
from visual_region.study.tables.notes import notes
from visual_region.study.tables.page import NONE, Grid, Page, Text

Blocks = Sequence[Sequence[tuple[Row, Mapping[str, Entry]]]]
"""The rows of each share of the data with their entries by column."""


@dataclass(frozen=True)
class ScoreTable:
    """A table of scores.

    Attributes:
        name: of its files.
        experiment: of the cells that are its rows.
        text: its columns are the text benchmarks.
        order: of rows of one share, after the reference: (row, its average or None) -> key.
        claims: its rows are also compared with the one of the paper's claim, a quarter of the layers, spread.
    """

    name: str
    title: str
    experiment: str
    text: bool
    order: Callable[[Row, float], Any]
    claims: bool = False


TABLES = (
    ScoreTable(
        "selections", "Selections of layers (Table 1)", "selections", False, lambda row, average: -average, claims=True
    ),
    ScoreTable(
        "depths", "Numbers of tuned layers (Tables 2 and 3)", "depths", False, lambda row, average: -(row.number or 0)
    ),
    ScoreTable(
        "shares", "Shares of the training data (Figure 2)", "shares", False, lambda row, average: -(row.number or 0)
    ),
    ScoreTable("text", "Text benchmarks (Table 4)", "text", True, lambda row, average: row.is_backbone),
)
"""The numbers in brackets are the paper's (ACL 2025)."""


def score_page(table: ScoreTable, board: Board) -> Page:
    """The table of a board that has rows and was asked for columns, which need not have scores."""
    shares = sorted({row.share for row in board.rows}, reverse=True)
    blocks: list[list[tuple[Row, dict[str, Entry]]]] = []
    for share in shares:
        rows = [row for row in board.rows if row.share == share]
        entries = board.entries(rows)

        def key(row: Row, entries: Mapping[str, Mapping[str, Entry]] = entries) -> tuple:
            found = entries[row.name]
            return (row.name != board.reference, table.order(row, _summary(board, found).value.value if found else -1))

        blocks.append([(row, entries[row.name]) for row in sorted(rows, key=key)])
    claims = {row.share: row for row in board.rows if is_quarter(row)} if table.claims and board.summary else {}
    grids = [_values(board, blocks, len(shares) > 1, claims)]
    if any(entry.ratio or entry.difference for block in blocks for _, found in block for entry in found.values()):
        grids.append(_differences(board, blocks, len(shares) > 1))
    records = [
        score_record(row, name, found.get(name), board.title_of(name))
        | (_claim_record(board, row, claims, name == board.summary) if claims else {})
        for block in blocks
        for row, found in block
        for name in [*board.names, *(column.name for column in board.absent)]
    ]
    facts = {"reference": board.reference, "columns": [column.name for column in board.columns]}
    facts |= {"claim": next(iter(claims.values())).name} if claims else {}
    return Page(table.name, table.title, grids, notes(board), records, facts)


def _summary(board: Board, found: Mapping[str, Entry]) -> Entry:
    """The average, or the first column where there is none."""
    return found.get(AVERAGE) or next(iter(found.values()))


def _values(board: Board, blocks: Blocks, shares: bool, claims: Mapping[float, Row]) -> Grid:
    kept = board.summary if board.reference else None
    head = ["", "layers", *(["data"] if shares else []), "seeds", *map(board.title_of, board.names)]
    lines = [
        [
            [
                *labels(row, shares),
                Text(NONE if row.is_backbone else str(len(board.seeds_of(row)))),
                *(value_text(found.get(name), board) for name in board.names),
                *([_kept(found.get(kept), board)] if kept else []),
                *([_of_whole(found.get(kept), row is board.whole)] if kept and board.whole else []),
                *([_points(board, *_to_claim(board, row, claims))] if claims else []),
            ]
            for row, found in block
        ]
        for block in blocks
    ]
    covered = covers_text(len(board.seeds_of(row)) for row in board.rows if not row.is_backbone)
    caption = (
        f"Scores in percent: mean over the seeds ± standard deviation over the seeds (95% interval over {covered}). "
    )
    if any(board.is_log(column) for column in board.columns):
        caption += "A perplexity is a geometric mean over the seeds; lower is better. "
    if kept:
        what = "the average" if kept == AVERAGE else board.title_of(kept)
        caption += f"Kept: {what} as a share of that of {board.reference}, paired by question and seed. "
        head.append("kept")
        if board.whole:
            caption += (
                f"Kept of {board.whole.share:g}%: as a share of that of {board.reference} with "
                f"{board.whole.share:g}% of the data. "
            )
            head.append(f"kept of {board.whole.share:g}%")
    if claims:
        what, name = "the average", next(iter(claims.values())).name
        what = what if board.summary == AVERAGE else board.title_of(board.summary)
        caption += f"Less {name}: {what} less that of {name}, in points, paired by question and seed. "
        head.append(f"less {name}")
    caption += (
        "Bold: the best of a column, and every row that the 95% interval of the paired difference does not show to be "
        "worse. Each comparison is made by itself: of 20 rows that equal the best, one is not bold by chance."
    )
    return Grid(caption, head, lines)


def _differences(board: Board, blocks: Blocks, shares: bool) -> Grid:
    head = ["", "layers", *(["data"] if shares else []), *map(board.title_of, board.names)]
    lines = [
        [
            [*labels(row, shares), *(difference_text(found.get(name), board) for name in board.names)]
            for row, found in block
            if row.name != board.reference
        ]
        for block in blocks
    ]
    caption = f"Difference to {board.reference} in points, paired by question and seed (95% interval)"
    caption += "; perplexities as a ratio." if any(map(board.is_log, board.columns)) else "."
    return Grid(caption, head, [block for block in lines if block])


def labels(row: Row, shares: bool) -> list[Text]:
    number = NONE if row.number is None else f"{row.number} of {row.depth}" if row.depth else str(row.number)
    return [Text(row.name), Text(number), *([Text(f"{row.share:g}%")] if shares else [])]


def value_text(entry: Entry | None, board: Board) -> Text:
    if entry is None:
        return Text(NONE)
    found, digits = entry.value, 2 if entry.log else 1
    value = f"{found.value:.{digits}f}" + (f" ± {found.sd:.{digits}f}" if found.sd is not None else "")
    return Text(value + _among(entry.columns, entry, board), interval_text(found, digits), bool(entry.mark))


def _kept(entry: Entry | None, board: Board) -> Text:
    if entry is None or entry.ratio is None:
        return Text("100%" if entry and entry.is_reference else NONE)
    kept = entry.ratio.scaled(100)
    return Text(f"{kept.value:.1f}%{_among(entry.kept_over, entry, board)}", interval_text(kept))


def _of_whole(entry: Entry | None, is_whole: bool) -> Text:
    if entry is None or entry.of_whole is None:
        return Text(NONE)
    found = entry.of_whole.scaled(100)
    return Text("100%" if is_whole else f"{found.value:.1f}%", "" if is_whole else interval_text(found))


def _to_claim(board: Board, row: Row, claims: Mapping[float, Row]) -> tuple[Estimate | None, list[Column]]:
    """How what sums up a row differs from that of its share's row of the claim, in points, and the columns of both."""
    claim = claims.get(row.share)
    if claim is None or claim is row:
        return None, []
    both = [column for column in board.averaged if board.sample(row, column) and board.sample(claim, column)]
    return board.difference(row, claim, both), both


def _points(board: Board, found: Estimate | None, over: Sequence[Column]) -> Text:
    if found is None:
        return Text(NONE)
    return Text(f"{found.value:+.1f}{_of_columns(len(over), len(board.averaged))}", interval_text(found))


def _claim_record(board: Board, row: Row, claims: Mapping[float, Row], is_summary: bool) -> dict[str, Any]:
    found, over = _to_claim(board, row, claims) if is_summary else (None, [])
    return numbers("to_claim", found) | {"to_claim_over": [column.name for column in over]}


def difference_text(entry: Entry | None, board: Board) -> Text:
    if entry is None or (entry.difference is None and entry.ratio is None):
        return Text(NONE)
    if entry.difference is None:
        return Text(f"×{entry.ratio.value:.3f}", interval_text(entry.ratio, 3))
    found = entry.difference
    return Text(f"{found.value:+.1f}{_among(entry.kept_over, entry, board)}", interval_text(found))


def _among(columns: Sequence[str], entry: Entry, board: Board) -> str:
    """Says so if an average is over fewer columns than the table has."""
    return _of_columns(len(columns), len(board.averaged) if entry.name == AVERAGE else 1)


def _of_columns(number: int, most: int) -> str:
    return "" if number == most else f", {number} of {most}"


def interval_text(found: Estimate, digits: int = 1) -> str:
    return f"{found.low:.{digits}f} to {found.high:.{digits}f}" if found.has_interval else "no interval"


def score_record(row: Row, name: str, entry: Entry | None, title: str) -> dict[str, Any]:
    """All numbers of a row in a column; None for what there is not."""
    record = row_record(row) | {"column": name, "title": title}
    record["unit"] = None if entry is None else "perplexity" if entry.log else "percent"
    found = entry.value if entry else None
    record |= numbers("", found) | {"mark": entry.mark if entry else None}
    record |= numbers("difference", entry and entry.difference) | numbers("ratio", entry and entry.ratio)
    record |= numbers("of_whole", entry and entry.of_whole)
    record["over"] = list(entry.columns) if entry else []
    record["compared_over"] = list(entry.kept_over) if entry else []
    return record


def row_record(row: Row) -> dict[str, Any]:
    """What a row is, for CSV and JSON."""
    return {
        "row": row.name,
        "selection": row.selections,
        "layers": None if row.layers is None else list(row.layers),
        "number": row.number,
        "depth": row.depth,
        "share": row.share,
    }


def numbers(prefix: str, found: Estimate | None) -> dict[str, Any]:
    """The attributes of an estimate by name; its value is named by the prefix alone."""
    names = [one.name for one in fields(Estimate)]
    keys = [(prefix or name) if name == "value" else f"{prefix}_{name}".lstrip("_") for name in names]
    return dict.fromkeys(keys) if found is None else dict(zip(keys, asdict(found).values(), strict=True))
