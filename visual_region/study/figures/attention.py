"""Figure 5: attention to the image, by layer and data set."""

from collections.abc import Sequence

import numpy as np

from llava.palette import EMPTY
from visual_region.pictures.figure import PAGE, new_figure
from visual_region.pictures.heatmap import colour_bar, heat_panels, samples_of
from visual_region.scores import ScoreFile
from visual_region.study.figures.drawing import Drawing, label_of, range_text, seeds_text, with_file, wrapped
from visual_region.study.results import ATTENTION, CellResult

METRIC = "image-attention"
_PANELS = 4
"""At most so many next to each other."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """A heat map, samples by layers, for each row of the study and each of its data sets."""
    rows, missing = with_file(results, "attention", f"{ATTENTION}/*.json")
    folders = {label_of(row): [cell.folder / ATTENTION for cell in row.cells.values()] for row in rows}
    sets = sorted({file.stem for own in folders.values() for folder in own for file in folder.glob("*.json")})
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for row, own in folders.items():
        for name in sets:
            files = [file for folder in own if (file := folder / f"{name}.json").is_file()]
            if files:
                found[row, name] = samples_of([ScoreFile.read(file) for file in files], METRIC)
            if len(files) < len(own):
                missing.append(f"{name} of {row} ({len(own) - len(files)} of {len(own)} seeds)")
    across = min(_PANELS, len(sets))
    down = -(-len(found) // across)
    figure, axes = new_figure(down, across, PAGE * (across + 0.3) / (_PANELS + 0.3), 1.75 * down + 0.2, len(found))
    # The seeds of one heat map are below each other.
    image = heat_panels(axes, [np.concatenate(seeds) for seeds in found.values()], 8)
    for place, (axis, ((row, name), seeds)) in enumerate(zip(axes, found.items(), strict=True)):
        axis.set_title("\n".join([wrapped(row, 24)] * (len(rows) > 1) + [wrapped(name, 24)]))
        for end in np.cumsum([len(samples) for samples in seeds])[:-1]:
            axis.axhline(end - 0.5, color=EMPTY, linewidth=1)
        if place % across == 0:
            axis.set_ylabel("sample")
        if place < len(found) - across:
            axis.set_xlabel("")
    colour_bar(figure, image, axes, METRIC)
    samples = range_text((len(one) for seeds in found.values() for one in seeds), "sample")
    caption = (
        "Attention of each layer to the image in each sample: the sum over image tokens, heads and query tokens, "
        f"divided by the number of image tokens and of heads. {seeds_text(rows)}, {samples} for each; the seeds are "
        "below each other, with a line between them. The brightest colour is that of the highest 0.5% of the values."
    )
    return Drawing(figure, caption, missing)
