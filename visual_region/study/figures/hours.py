"""Figure 3: what a training costs, by the number of tuned layers."""

from collections.abc import Sequence

from visual_region.pictures.figure import COLUMN, legend_below, new_figure, style_of
from visual_region.study.figures.by_depth import Lines, depth_axis, dodged, lines_of, rows_in, whole_of
from visual_region.study.figures.drawing import Drawing, seeds_text
from visual_region.study.missing import share_label, uneven
from visual_region.study.results import CellResult
from visual_region.study.samples import Row
from visual_region.study.tables.cost import device_of, hours_ratio

_HOUR = 1.0
"""If no training took so long, the axis is in minutes."""


def draw(results: Sequence[CellResult], columns: Sequence[str]) -> Drawing:
    """Device hours of run.json: the mean over the seeds, and a bar from the lowest to the highest seed."""
    lines, missing = lines_of(results, lambda result: bool(result.run.get("finished")), "the run.json of its training")
    missing += uneven(rows_in(lines))
    longest = max(max(hours_of(row)) for row in rows_in(lines))
    scale, unit = (60, "device minutes") if longest < _HOUR else (1, "device hours")
    figure, (axis,) = new_figure(1, 1, COLUMN, 2.1 + 0.17 * -(-len(lines) // 2))
    for place, points in enumerate(lines.values()):
        values = [[scale * hours for hours in hours_of(row)] for row in points.values()]
        means = [sum(own) / len(own) for own in values]
        below = [mean - min(own) for mean, own in zip(means, values, strict=True)]
        above = [max(own) - mean for mean, own in zip(means, values, strict=True)]
        places = dodged(points, place, len(lines))
        axis.errorbar(places, means, yerr=[below, above], capsize=1.8, **style_of(place))
    axis.set_ylim(bottom=0)
    axis.set_ylabel(unit)
    axis.grid(axis="y", alpha=0.3)
    depth_axis(axis, lines, COLUMN - 1)
    if len(lines) > 1:
        legend_below(figure, {share_label(share): style_of(place) for place, share in enumerate(lines)}, 2)
    devices = sorted({device_of(cell) for row in rows_in(lines) for cell in row.cells.values()})
    caption = (
        "Measured cost of the training by the number of tuned layers: mean over the seeds, and bars from the lowest to "
        f"the highest seed. {seeds_text(rows_in(lines))}, on {'; '.join(devices)}.{_saved(lines)}"
    )
    if len(devices) > 1:
        missing.append(f"{len(devices)} kinds of devices were used, and their hours cannot be compared")
    return Drawing(figure, caption, missing)


def hours_of(row: Row) -> list[float]:
    """Device hours of each seed's training."""
    return [cell.run["device_hours"] for cell in row.cells.values()]


def _saved(lines: Lines) -> str:
    """The cost at the largest share of the data, in percent of that of all layers; "" without all layers."""
    share, points = next(iter(lines.items()))
    ratios = {size: hours_ratio(row, whole_of(points)) for size, row in points.items() if not row.tunes_all}
    texts = [f"{size}: {100 * ratio.value:.0f}%" for size, ratio in reversed(ratios.items()) if ratio]
    return f" In percent of the cost of all layers ({share_label(share)}): {', '.join(texts)}." if texts else ""
