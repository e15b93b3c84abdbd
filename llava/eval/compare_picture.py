"""A comparison drawn: what each checkpoint keeps of the reference, and its difference on every benchmark."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.eval.benchmarks import BENCHMARKS
from llava.files import written_whole


def draw(comparison: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG: differences with intervals on the left, percent kept on the right where there is any."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(comparison["differences"])
    # Perplexity is in another unit, and lower is better: it stays in the table.
    columns = [
        benchmark.column
        for benchmark in BENCHMARKS
        if benchmark.name != "perplexity" and any(benchmark.column in comparison["differences"][n] for n in names)
    ]
    kept = {name: entry for name, entry in comparison["kept"].items() if entry is not None}
    height = 1.6 + 0.34 * max(len(columns) * max(1, 0.45 * len(names)), 2)
    figure, axes = plt.subplots(
        1, 2 if kept else 1, figsize=(11 if kept else 7.5, height), layout="constrained", squeeze=False
    )
    left = axes[0][0]
    colours = {name: f"C{i % 10}" for i, name in enumerate(names)}
    left.axvline(0, color="grey", linewidth=1)
    for i, name in enumerate(names):
        offset = 0.7 * ((i + 0.5) / len(names) - 0.5)
        for j, column in enumerate(columns):
            entry = comparison["differences"][name].get(column)
            if entry is None:
                continue
            _point(
                left, entry, j + offset, colours[name], name if column == _first(comparison, name, columns) else None
            )
    left.set_yticks(range(len(columns)), columns)
    left.set_ylim(len(columns) - 0.5, -0.5)
    left.set_xlabel(f"difference to {comparison['reference']}, points (95%, paired)")
    left.grid(axis="x", alpha=0.3)
    if len(names) > 1:
        left.legend(fontsize=8)
    if kept:
        right = axes[0][1]
        right.axvline(100, color="grey", linewidth=1)
        for i, (name, entry) in enumerate(kept.items()):
            _point(right, entry, i, colours[name], None)
            right.annotate(
                f"{entry['value']:.1f}%", (entry["value"], i), (0, 7), textcoords="offset points", ha="center"
            )
        right.set_yticks(range(len(kept)), list(kept))
        right.set_ylim(len(kept) - 0.5, -0.5)
        over = sorted({len(entry["benchmarks"]) for entry in kept.values()})
        right.set_xlabel(f"percent of {comparison['reference']} kept, {'/'.join(map(str, over))} visual benchmarks")
        right.grid(axis="x", alpha=0.3)
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    plt.close(figure)


def _first(comparison: Mapping[str, Any], name: str, columns: list[str]) -> str | None:
    """The column whose point carries the checkpoint's name into the legend."""
    return next((column for column in columns if column in comparison["differences"][name]), None)


def _point(axes: Any, entry: Mapping[str, Any], y: float, colour: str, label: str | None) -> None:
    """A value with its interval; an open mark where there is none."""
    if entry["interval"]:
        reach = [[max(0.0, entry["value"] - entry["low"])], [max(0.0, entry["high"] - entry["value"])]]
        axes.errorbar(entry["value"], y, xerr=reach, fmt="o", color=colour, capsize=3, label=label)
    else:
        axes.plot(entry["value"], y, "o", markerfacecolor="none", color=colour, label=label)
