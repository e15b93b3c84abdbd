"""The table of the pruning curves (Figure 4 and Figure 1, right): scores with layers removed."""

from collections.abc import Iterator, Mapping, Sequence

from visual_region.study.board import Board, Entry
from visual_region.study.curves import PruningCurves, curves_of
from visual_region.study.results import CURVE_FILE, CellResult
from visual_region.study.samples import Row, rows_of
from visual_region.study.statistics import covers_text
from visual_region.study.tables.notes import notes
from visual_region.study.tables.page import NONE, Grid, Page, Text
from visual_region.study.tables.scores import difference_text, labels, score_record, value_text

Lines = Sequence[tuple[Row, int, Board, Mapping[str, Entry]]]
"""A row, the number of removed layers, and what the board without so many says of it."""


def pruning_page(results: Sequence[CellResult], columns: Sequence[str]) -> Page | None:
    """The scores of every row by the number of removed layers; None without a curve.

    Raises:
        StudyError: no curve has a score of the whole model.
        ScoreError: a file is not a curve.
    """
    rows = rows_of(result for result in results if (result.folder / CURVE_FILE).is_file())
    if not rows:
        return None
    rows.sort(key=lambda row: not row.tunes_all)
    curves = curves_of(rows, columns)
    blocks = [list(_lines(curves, row)) for row in rows]
    grids = [_values(curves, blocks)]
    if any(entry.difference for block in blocks for *_, found in block for entry in found.values()):
        grids.append(_differences(curves, blocks))
    grids.append(_removed(curves, rows))
    records = [
        score_record(row, name, found.get(name), board.title_of(name))
        | {"removed": number, "removed_layers": _by_seed(curves, row, number)}
        for block in blocks
        for row, number, board, found in block
        for name in board.names
    ]
    said = [*notes(curves.boards[0]), *(text for board in curves.boards.values() for text in board.left_out)]
    return Page("pruning", "Pruning (Figure 1, right, and Figure 4)", grids, list(dict.fromkeys(said)), records)


def _lines(curves: PruningCurves, row: Row) -> Iterator[tuple[Row, int, Board, Mapping[str, Entry]]]:
    """The row as each board has it, if it has a score there."""
    for number, board in curves.boards.items():
        alike = [own for own in board.rows if own.share == row.share]
        own = next((own for own in alike if own.name == row.name), None)
        if own is not None and (found := board.entries(alike)[own.name]):
            yield own, number, board, found


def _values(curves: PruningCurves, blocks: Sequence[Lines]) -> Grid:
    whole = curves.boards[0]
    lines = [
        [
            [
                *labels(row, _shares(whole)),
                Text(str(number)),
                Text(str(len(board.seeds_of(row)))),
                *(value_text(found.get(name), board) for name in whole.names),
            ]
            for row, number, board, found in block
        ]
        for block in blocks
    ]
    covered = covers_text(len(row.cells) for row in whole.rows)
    caption = (
        f"Scores in percent after the removal of the least important layers{curves.order}: outside the tuned region, "
        "or, of a model tuned in all layers, of any. Nothing is trained after the removal. Mean over the seeds ± "
        f"standard deviation over the seeds (95% interval over {covered}). Bold: among the rows with as many removed "
        "layers, the best, and every row that the 95% interval of the paired difference does not show to be worse."
    )
    head = ["", "layers", *(["data"] if _shares(whole) else []), "removed", "seeds", *_titles(whole)]
    return Grid(caption, head, [block for block in lines if block])


def _differences(curves: PruningCurves, blocks: Sequence[Lines]) -> Grid:
    whole = curves.boards[0]
    lines = [
        [
            [
                *labels(row, _shares(whole)),
                Text(str(number)),
                *(difference_text(found.get(name), board) for name in whole.names),
            ]
            for row, number, board, found in block
            if row.name != board.reference
        ]
        for block in blocks
    ]
    caption = (
        f"Difference to {whole.reference} with as many layers removed, in points, paired by question and seed "
        "(95% interval)."
    )
    head = ["", "layers", *(["data"] if _shares(whole) else []), "removed", *_titles(whole)]
    return Grid(caption, head, [block for block in lines if block])


def _removed(curves: PruningCurves, rows: Sequence[Row]) -> Grid:
    """Which layers each seed's curve removes."""
    numbers = [number for number in curves.boards if number]
    lines = [
        [
            [
                *labels(row, _shares(curves.boards[0])),
                Text(str(seed)),
                *(_layers(own.get(number)) for number in numbers),
            ]
            for seed, own in curves.removed.get((row.name, row.share), {}).items()
        ]
        for row in rows
    ]
    shares = ["data"] if _shares(curves.boards[0]) else []
    head = ["", "layers", *shares, "seed", *(f"{number} removed" for number in numbers)]
    return Grid("The removed layers, 0-based.", head, [block for block in lines if block])


def _layers(layers: Sequence[int] | None) -> Text:
    return Text(NONE if layers is None else " ".join(map(str, layers)))


def _by_seed(curves: PruningCurves, row: Row, number: int) -> list[str]:
    """Which layers are removed with each seed, as SEED:LAYER,LAYER."""
    seeds = curves.removed.get((row.name, row.share), {})
    return [f"{seed}:{','.join(map(str, own[number]))}" for seed, own in seeds.items() if number in own]


def _shares(board: Board) -> bool:
    return len({row.share for row in board.rows}) > 1


def _titles(board: Board) -> list[str]:
    return [board.title_of(name) for name in board.names]
