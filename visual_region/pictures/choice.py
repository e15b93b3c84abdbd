"""Selections of layers, drawn under the scores of a metric."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llava.names import spec_labels
from visual_region.layers import LayerSelection
from visual_region.pictures.bars import score_panel
from visual_region.pictures.figure import new_figure, save, shortened
from visual_region.pictures.stacks import stack_panel
from visual_region.scores import ScoreFile


def draw_choice(scores: ScoreFile, metric: str, selections: Sequence[LayerSelection], path: str | Path) -> None:
    """Writes the picture: the metric's bars, with the first selection in another colour, and a row per selection."""
    names = shortened(spec_labels([selection.spec for selection in selections], drop_single=True))
    depth = scores.num_layers
    width = max(6.0, 0.26 * depth + 0.085 * max(map(len, names)) + 0.8)
    rows = 0.34 * len(names) + 0.4
    figure, (bars, stack) = new_figure(2, 1, width, 2.6 + rows + 0.3, height_ratios=(2.6, rows))
    score_panel(bars, scores, metric, set(selections[0]))
    stack_panel(stack, np.array([[layer in s for layer in range(depth)] for s in selections], dtype=float))
    stack.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=8)
    # A layer's bar is above its cell: bars are centred on whole numbers, cells begin there.
    bars.set_xlim(-0.5, depth - 0.5)
    bars.set_xlabel("")
    save(figure, path)
