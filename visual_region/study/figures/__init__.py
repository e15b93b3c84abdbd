"""The paper's Figures 1 to 5, and what the study adds to them, from any set of cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

from llava.files import written_whole
from visual_region.pictures.figure import PRINT, save_for_print
from visual_region.scores import ScoreError
from visual_region.study.figures import attention, depths, hours, metrics, pruning, reversion, selections
from visual_region.study.figures.drawing import Draw
from visual_region.study.results import CellResult
from visual_region.study.samples import StudyError, columns_of

CAPTIONS = "captions.md"
FIGURES: Mapping[str, tuple[str, Draw]] = {
    "selections": ("Selections of layers", selections.draw),
    "figure1-reversion": ("Figure 1, left: layers set back", reversion.draw),
    "figure1-pruning": ("Figure 1, right: pruning a model tuned in all layers", pruning.draw_all_layers),
    "figure2-depths": ("Figure 2: score by the number of tuned layers", depths.draw),
    "figure3-hours": ("Figure 3: cost by the number of tuned layers", hours.draw),
    "figure4-pruning": ("Figure 4: pruning", pruning.draw),
    "figure5-attention": ("Figure 5: attention to the image", attention.draw),
    "metrics": ("Importance of layers", metrics.draw),
}
"""File name -> title, and what draws it."""


def draw_figures(results: Sequence[CellResult], columns: Sequence[str], folder: Path) -> list[Path]:
    """Writes every figure for which there are cells, as PNG and SVG, and their captions.

    A figure for which no cell has anything, or one of whose files is broken, is left out, and one line says why.

    Args:
        columns: the scores that figures show: BENCHMARK or BENCHMARK/PART.
        folder: where the files go; it is made.

    Returns:
        The files, captions.md last.

    Raises:
        StudyError: a column is none.
    """
    columns_of(columns)
    files, lines = [], ["# Figures", ""]
    for name, (title, draw) in FIGURES.items():
        lines += [f"## {title}", ""]
        try:
            with matplotlib.rc_context(PRINT):
                drawing = draw(results, columns)
                files += save_for_print(drawing.figure, folder, name)
        except (StudyError, ScoreError) as reason:
            print(f"{name} is not drawn: {reason}")
            lines += [f"Not drawn: {reason}.", ""]
            continue
        notes = list(dict.fromkeys(drawing.notes))
        lines += [f"![{title}]({name}.svg)", "", drawing.caption, ""]
        lines += [*(f"- {text}" for text in notes), ""] if notes else []
    with written_whole(folder / CAPTIONS) as aside:
        aside.write_text("\n".join(lines), encoding="utf-8")
    return [*files, folder / CAPTIONS]
