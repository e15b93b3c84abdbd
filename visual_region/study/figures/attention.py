"""Figure 5: attention to the image, by layer and data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llava.names import count
from llava.palette import EMPTY
from visual_region.pictures.figure import PAGE, new_figure, title_of, unit_of
from visual_region.pictures.heatmap import colour_bar, heat_panels, samples_of
from visual_region.scores import ScoreFile
from visual_region.study.figures.drawing import Drawing, across_of, range_text, seeds_text, with_file, wrapped
from visual_region.study.missing import label_of
from visual_region.study.results import ATTENTION, CellResult

METRIC = "image-attention"
_PANELS = 4
"""At most so many next to each other."""
_WORDS = 3
"""So many seeds have room for the word."""

Seeds = Mapping[int, np.ndarray]
"""Seed -> attention `(samples, layers)`."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """A heat map, samples by layers, for each row of the study and each of its data sets."""
    rows, missing = with_file(results, "attention", f"{ATTENTION}/*.json")
    sets = sorted({file.stem for row in rows for cell in row.cells.values() for file in _files(cell)})
    found: dict[tuple[str, str], Seeds] = {}
    for row in rows:
        for name in sets:
            own = {seed: file for seed, cell in row.cells.items() for file in _files(cell) if file.stem == name}
            if own:
                samples = samples_of(list(map(ScoreFile.read, own.values())), METRIC)
                found[label_of(row), name] = dict(zip(own, samples, strict=True))
            if lost := len(row.cells) - len(own):
                missing.append(
                    f"{name} is not measured for {lost} of {count(len(row.cells), 'seed')} of {label_of(row)}"
                )
    across = across_of(len(sets), _PANELS)
    lines = -(-len(sets) // across)
    width = PAGE * (across + 0.4) / (_PANELS + 0.4)
    figure, axes = new_figure(len(rows) * lines, across, width, 1.6 * len(rows) * lines + 0.3)
    # Every row of the study begins a line, and a data set has the same place in all.
    grid = np.reshape(axes, (len(rows), lines * across))
    panels = {(label_of(row), name): grid[i, j] for i, row in enumerate(rows) for j, name in enumerate(sets)}
    for axis in grid[:, len(sets) :].flat:
        axis.set_axis_off()
    image = heat_panels([panels[key] for key in found], [np.concatenate(list(s.values())) for s in found.values()], 7)
    for (row, name), axis in panels.items():
        if (row, name) not in found:
            axis.set_axis_off()
            continue
        axis.set_title(wrapped(name, 24))
        _sample_axis(axis, found[row, name])
        axis.set_ylabel(wrapped(row, 22) if sets.index(name) % across == 0 and len(rows) > 1 else "")
        if row != label_of(rows[-1]):
            axis.set_xlabel("")
    colour_bar(figure, image, axes, f"{title_of(METRIC)}\n({unit_of(METRIC)})")
    samples = range_text((len(one) for seeds in found.values() for one in seeds.values()), "sample")
    caption = (
        "Attention of each layer to the image in each sample: the sum over image tokens, heads and query tokens, "
        f"divided by the number of image tokens and of heads. {seeds_text(rows)}, {samples} for each; a line "
        "of colours is a sample, the one with the shortest text at the top: a longer text has more query tokens, and "
        "so a larger sum. The brightest colour is that of the highest 0.5% of the values."
    )
    return Drawing(figure, caption, missing)


def _files(cell: CellResult) -> list[Path]:
    return sorted((cell.folder / ATTENTION).glob("*.json"))


def _sample_axis(axis: Any, seeds: Seeds) -> None:
    """The seeds, with a line between them; the number of a sample means nothing."""
    ends = np.cumsum([len(samples) for samples in seeds.values()])
    middles = [end - len(samples) / 2 - 0.5 for end, samples in zip(ends, seeds.values(), strict=True)]
    word = "seed " if len(seeds) <= _WORDS else ""
    axis.set_yticks(middles, [f"{word}{seed}" for seed in seeds], rotation=90, va="center")
    axis.tick_params(axis="y", length=0)
    for end in ends[:-1]:
        axis.axhline(end - 0.5, color=EMPTY, linewidth=1)
