"""The table of the pruning curves (Figure 4 and Figure 1, right): scores with layers removed."""

from collections.abc import Iterator, Mapping, Sequence

from visual_region.study.board import Board, Entry
from visual_region.study.curves import PruningCurves, curves_of
from visual_region.study.missing import rows_with
from visual_region.study.results import CURVE_FILE, CellResult
from visual_region.study.samples import Row
from visual_region.study.statistics import covers_text
from visual_region.study.tables.notes import notes
from visual_region.study.tables.page import NONE, Grid, Page, Text
from visual_region.study.tables.scores import difference_text, labels, score_record, value_text

Lines = Sequence[tuple[Row, int, Board, Mapping[str, Entry]]]
"""A row, the number of removed layers, and what the board without so many says of it."""


def pruning_page(results: Sequence[CellResult], columns: Sequence[str], reference: str | None = None) -> Page | None:
    """The scores of every row by the number of removed layers; None without a curve. Arguments: see `curves_of`.

    Raises:
        StudyError: no curve has a score of the whole model in a benchmark of images.
        ScoreError: a file is not a curve.
    """
    rows, missing = rows_with(results, "curve", CURVE_FILE)
    if not rows:
        return None
    curves = curves_of(rows, columns, reference)
    blocks = [list(_lines(curves, row)) for row in rows]
    grids = [_values(curves, blocks)]
    if any(entry.difference for block in blocks for *_, found in block for entry in found.values()):
        grids.append(_differences(curves, blocks))
    grids.append(_removed(curves, rows))
    records = [
        score_record(row, name, found.get(name), board.title_of(name))
        | {"removed": number, "removed_by_seed": _by_seed(curves, row, number)}
        for block in blocks
        for row, number, board, found in block
        for name in board.names
    ]
    title = "Pruning (Figure 1, right, and Figure 4)"
    return Page("pruning", title, grids, list(dict.fromkeys([*missing, *_notes(curves)])), records)


def _notes(curves: PruningCurves) -> Iterator[str]:
    """Those of the whole models, and what else is to be said without some layers."""
    whole = curves.boards[0]
    paired = any(whole.reference_of(row) for row in whole.rows)
    if not paired:
        yield "there is no curve of a model tuned in all layers: nothing is compared"
    if curves.of_text:
        yield f"not shown, because they are of text: {', '.join(curves.of_text)}"
    of_whole = notes(whole, paired)
    yield from of_whole
    for number, board in curves.boards.items():
        yield from (f"{number} removed: {note}" for note in notes(board, paired) if note not in of_whole)


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
                *(value_text(found.get(name), whole) for name in whole.names),
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
        "layers and the same share of the data, the best, and every row that the 95% interval of the paired "
        "difference does not show to be worse."
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
                *(difference_text(found.get(name), whole) for name in whole.names),
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
    """Which layers each seed's curve removes, and the seed's average without them."""
    whole = curves.boards[0]
    lines = [
        [
            [*labels(row, _shares(whole)), Text(str(seed)), *(_of_seed(curves, row, seed, n) for n in curves.boards)]
            for seed in curves.removed.get((row.name, row.share), {})
        ]
        for row in rows
    ]
    average = "the average" if len(whole.averaged) > 1 else "the score"
    caption = f"The removed layers of each seed, 0-based, and in brackets {average} without them, in percent."
    head = ["", "layers", *(["data"] if _shares(whole) else []), "seed", *(f"{n} removed" for n in curves.boards)]
    return Grid(caption, head, [block for block in lines if block])


def _of_seed(curves: PruningCurves, row: Row, seed: int, number: int) -> Text:
    layers = curves.removed[row.name, row.share][seed].get(number)
    # A file of an earlier version may not name the layers.
    if layers is None or len(layers) != number:
        return Text(NONE)
    board, text = curves.boards[number], " ".join(map(str, layers)) or "none"
    samples = [board.sample(row, column) for column in board.averaged]
    if not samples or any(sample is None or seed not in sample.seeds for sample in samples):
        return Text(text)
    return Text(text, f"{100 * sum(float(s.headlines_of([seed])[0]) for s in samples) / len(samples):.1f}")


def _by_seed(curves: PruningCurves, row: Row, number: int) -> list[str]:
    """Which layers are removed with each seed, as SEED:LAYER,LAYER."""
    seeds = curves.removed.get((row.name, row.share), {})
    return [
        f"{seed}:{','.join(map(str, own[number]))}" for seed, own in seeds.items() if len(own.get(number, ())) == number
    ]


def _shares(board: Board) -> bool:
    return len({row.share for row in board.rows}) > 1


def _titles(board: Board) -> list[str]:
    return [board.title_of(name) for name in board.names]
