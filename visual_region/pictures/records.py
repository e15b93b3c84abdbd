"""The layers of checkpoints as their records say: tuned, set back, removed."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch

from llava.checkpoint.record import LayerRecord
from llava.palette import EMPTY, LINE, MARKED
from visual_region.pictures.figure import new_figure, save, shortened
from visual_region.pictures.stacks import stack_panel

REMOVED, REVERTED, HEALED = "×", "b", "h"
"""Marks of single layers."""


def draw_records(records: Mapping[str, LayerRecord], path: str | Path) -> None:
    """Writes the picture: one row per checkpoint, by name; layers are numbered as before any removal."""
    names, depth = shortened(list(records)), max(record.original_depth for record in records.values())
    cells = np.full((len(records), depth), np.nan)
    marks: dict[str, str] = {}
    width = max(6.0, 0.26 * depth + 0.085 * max(map(len, names)) + 0.8)
    figure, (axis,) = new_figure(1, 1, width, 0.34 * len(names) + 1.1)
    for row, record in enumerate(records.values()):
        tuned = record.layers or ()
        for layer in record.original:
            cells[row, layer] = layer in tuned
        healed = record.healed["layers"] if record.healed else ()
        for mark, layers, what in (
            (REMOVED, record.removed, "removed"),
            (REVERTED, record.reverted, "set back to the backbone"),
            (HEALED, healed, "healed"),
        ):
            for layer in layers:
                marks[mark] = what
                colour = "white" if cells[row, layer] == 1 else LINE
                place = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
                axis.text(layer + 0.5, row + 0.5, mark, **place)
    stack_panel(axis, cells)
    axis.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=8)
    handles = [Patch(color=MARKED, label="tuned"), Patch(color=EMPTY, label="not tuned")]
    handles += [Patch(color="none", label=f"{mark} {what}") for mark, what in marks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    save(figure, path)
