"""The table of the importance metrics by layer, from the cells' scores.json."""

from collections.abc import Sequence

from visual_region.scores import ScoreError, ScoreFile
from visual_region.study import statistics
from visual_region.study.results import SCORES_FILE, CellResult
from visual_region.study.samples import Row, rows_of
from visual_region.study.tables.page import Grid, Page, Text
from visual_region.study.tables.scores import numbers, row_record


def importance_page(results: Sequence[CellResult]) -> Page | None:
    """Each layer's importance by every metric, a grid for each row that was scored; None without one."""
    grids, records, notes = [], [], []
    for row in rows_of(result for result in results if (result.folder / SCORES_FILE).is_file()):
        files = _read(row, notes)
        names = [name for name in next(iter(files.values())).names] if files else []
        names = [name for name in names if all(name in file.names for file in files.values())]
        if not names:
            continue
        lines = []
        for layer in range(next(iter(files.values())).num_layers):
            line = [Text(str(layer))]
            for name in names:
                values = [file.entry(name)["values"][layer] for file in files.values()]
                found = statistics.of_headlines(values, [None] * len(values), 0)
                line.append(Text(f"{found.value:.3g}" + ("" if found.sd is None else f" ± {found.sd:.1g}")))
                records.append(row_record(row) | {"layer": layer, "metric": name} | numbers("", found))
            lines.append(line)
        of = f" at {row.share:g}% of the data" if row.share != 100 else ""
        caption = f"{row.name}{of}: importance of each layer, mean ± standard deviation over the seeds."
        grids.append(Grid(caption, ["layer", *names], [lines]))
    return Page("importance", "Importance of layers", grids, notes, records) if grids else None


def _read(row: Row, notes: list[str]) -> dict[int, ScoreFile]:
    """The score files by seed; those that cannot be read, or are of another depth than the first, are noted."""
    files: dict[int, ScoreFile] = {}
    for seed, result in row.cells.items():
        try:
            file = ScoreFile.read(result.folder / SCORES_FILE)
        except ScoreError as error:
            notes.append(f"left out: {error}")
            continue
        depth = next(iter(files.values())).num_layers if files else file.num_layers
        if file.num_layers == depth:
            files[seed] = file
        else:
            notes.append(f"left out: {file.path} has {file.num_layers} layers, and another seed's {depth}")
    return files
