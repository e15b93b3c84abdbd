"""Scores of layers as bars with intervals, one panel per metric."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.names import count
from llava.palette import LINE, MARKED, PLAIN
from visual_region.importance import METRICS
from visual_region.pictures.figure import layer_ticks, new_figure, save, title_of, unit_of
from visual_region.scores import ScoreFile


def draw_bars(
    scores: ScoreFile, marked: Sequence[int], path: str | Path, metrics: Sequence[str] | None = None, name: str = ""
) -> None:
    """Writes the picture, with the layers `marked` in another colour and called `name` (default: tuned region)."""
    metrics = metrics or [metric for metric in METRICS if metric in scores.names] or scores.names
    columns = min(2, len(metrics))
    rows = -(-len(metrics) // columns)
    width = max(5.0, 0.17 * scores.num_layers + 1.2)
    figure, axes = new_figure(rows, columns, width * columns, 2.5 * rows + 0.6, len(metrics))
    for axis, metric in zip(axes, metrics, strict=True):
        score_panel(axis, scores, metric, set(marked))
    model = "/".join(Path(scores.content.get("model", "")).parts[-2:])
    whiskers = any("low" in entry for entry in scores.content["metrics"].values())
    note = "; whiskers: 95% bootstrap interval" if whiskers else ""
    figure.suptitle(f"importance of the {scores.num_layers} layers of {model}{note}", fontsize=10)
    if marked:
        from matplotlib.patches import Patch

        handles = [Patch(color=MARKED, label=name or "tuned region"), Patch(color=PLAIN, label="other layers")]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    save(figure, path)


def score_panel(axis: Any, scores: ScoreFile, metric: str, marked: set[int]) -> None:
    entry = scores.entry(metric)
    values, layers = entry["values"], range(scores.num_layers)
    colours = [MARKED if i in marked else PLAIN for i in layers]
    axis.bar(layers, values, color=colours, width=0.8)
    if "low" in entry:
        # A percentile interval need not contain the value, and whiskers have no negative length.
        below = [max(v - low, 0.0) for v, low in zip(values, entry["low"], strict=True)]
        above = [max(high - v, 0.0) for v, high in zip(values, entry["high"], strict=True)]
        axis.errorbar(layers, values, yerr=[below, above], fmt="none", ecolor=LINE, elinewidth=0.9, capsize=1.5)
    samples = f", {count(entry['samples'], 'sample')}" if "samples" in entry else ""
    axis.set_title(f"{title_of(metric)}{samples}", fontsize=9)
    axis.set_ylabel(unit_of(metric), fontsize=8)
    layer_ticks(axis, scores.num_layers)
    axis.set_xlim(-0.7, scores.num_layers - 0.3)
    if min(values) >= 0:
        axis.set_ylim(bottom=0)
    axis.spines[["top", "right"]].set_visible(False)
