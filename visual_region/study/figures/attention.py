"""Figure 5: attention to the image, by layer and data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llava.palette import EMPTY
from visual_region.pictures.figure import PAGE, new_figure, title_of, unit_of
from visual_region.pictures.heatmap import colour_bar, heat_panels, samples_of
from visual_region.scores import ScoreFile
from visual_region.study.figures.drawing import Drawing, across_of, label_of, range_text, seeds_text, with_file, wrapped
from visual_region.study.results import ATTENTION, CellResult

METRIC = "image-attention"
_PANELS = 4
"""At most so many next to each other."""

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
            if len(own) < len(row.cells):
                missing.append(f"{name} of {label_of(row)} ({len(row.cells) - len(own)} of {len(row.cells)} seeds)")
    across = across_of(len(sets), _PANELS)
    down = -(-len(found) // across)
    figure, axes = new_figure(down, across, PAGE * (across + 0.4) / (_PANELS + 0.4), 1.75 * down + 0.2, len(found))
    image = heat_panels(axes, [np.concatenate(list(seeds.values())) for seeds in found.values()], 8)
    for place, (axis, ((row, name), seeds)) in enumerate(zip(axes, found.items(), strict=True)):
        axis.set_title("\n".join([wrapped(row, 24)] * (len(rows) > 1) + [wrapped(name, 24)]))
        _sample_axis(axis, seeds, place % across == 0)
        if place < len(found) - across:
            axis.set_xlabel("")
    colour_bar(figure, image, axes, f"{title_of(METRIC)}\n({unit_of(METRIC)})")
    samples = range_text((len(one) for seeds in found.values() for one in seeds.values()), "sample")
    caption = (
        "Attention of each layer to the image in each sample: the sum over image tokens, heads and query tokens, "
        f"divided by the number of image tokens and of heads. {seeds_text(rows)}, {samples} for each; several seeds "
        "are below each other. The brightest colour is that of the highest 0.5% of the values."
    )
    return Drawing(figure, caption, missing)


def _files(cell: CellResult) -> list[Path]:
    return sorted((cell.folder / ATTENTION).glob("*.json"))


def _sample_axis(axis: Any, seeds: Seeds, first: bool) -> None:
    """Numbers of samples, or the seeds with a line between them; texts only on the `first` panel of a line."""
    if first:
        axis.set_ylabel("sample")
    if len(seeds) == 1:
        return
    ends = np.cumsum([len(samples) for samples in seeds.values()])
    middles = [end - len(samples) / 2 - 0.5 for end, samples in zip(ends, seeds.values(), strict=True)]
    axis.set_yticks(middles, [f"seed {seed}" if first else "" for seed in seeds])
    axis.tick_params(axis="y", length=0)
    for end in ends[:-1]:
        axis.axhline(end - 0.5, color=EMPTY, linewidth=1)
