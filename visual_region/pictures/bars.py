"""A layer's score as a bar with its interval, one panel per metric, the chosen layers marked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visual_region.importance import METRICS
from visual_region.pictures.figure import MARKED, PLAIN, layer_ticks, new_figure, save
from visual_region.scores import ScoreFile


def draw_bars(
    scores: ScoreFile, marked: Sequence[int], path: str | Path, metrics: Sequence[str] | None = None, name: str = ""
) -> None:
    """Writes the picture.

    Args:
        marked: layers in another colour: the tuned region, or a selection.
        metrics: which, in this order; default: those of the paper that the file has.
        name: what the marked layers are; default: the tuned region.
    """
    metrics = metrics or [metric for metric in METRICS if metric in scores.names] or scores.names
    columns = min(2, len(metrics))
    rows = -(-len(metrics) // columns)
    width = max(5.0, 0.17 * scores.num_layers + 1.2)
    figure, axes = new_figure(rows, columns, width * columns, 2.5 * rows + 0.6)
    for axis, metric in zip(axes.flat, metrics, strict=False):
        _panel(axis, scores, metric, set(marked))
    for axis in axes.flat[len(metrics) :]:
        axis.set_axis_off()
    figure.suptitle(_title(scores), fontsize=10)
    if marked:
        from matplotlib.patches import Patch

        handles = [Patch(color=MARKED, label=name or "tuned region"), Patch(color=PLAIN, label="other layers")]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    save(figure, path)


def _panel(axis: Any, scores: ScoreFile, metric: str, marked: set[int]) -> None:
    entry = scores.entry(metric)
    values, layers = entry["values"], range(scores.num_layers)
    colours = [MARKED if i in marked else PLAIN for i in layers]
    axis.bar(layers, values, color=colours, width=0.8)
    if "low" in entry:
        # A percentile interval need not hold the value: lengths of whiskers are never negative.
        below = [max(v - low, 0.0) for v, low in zip(values, entry["low"], strict=True)]
        above = [max(high - v, 0.0) for v, high in zip(values, entry["high"], strict=True)]
        axis.errorbar(layers, values, yerr=[below, above], fmt="none", ecolor="#333333", elinewidth=0.9, capsize=1.5)
    title = METRICS[metric].title if metric in METRICS else metric
    samples = f", {entry['samples']} sample{'s' * (entry['samples'] != 1)}" if "samples" in entry else ""
    axis.set_title(f"{title}{samples}", fontsize=9)
    layer_ticks(axis.xaxis, scores.num_layers)
    axis.set_xlim(-0.7, scores.num_layers - 0.3)
    axis.tick_params(labelsize=7)
    axis.set_xlabel("layer", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _title(scores: ScoreFile) -> str:
    model = Path(scores.content.get("model", "")).parts[-2:]
    whiskers = any("low" in entry for entry in scores.content["metrics"].values())
    note = "; whiskers: 95% bootstrap interval" if whiskers else ""
    return f"importance of the {scores.num_layers} layers of {'/'.join(model)}{note}"
