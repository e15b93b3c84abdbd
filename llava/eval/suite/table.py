"""One checkpoint's scores as a row of the paper's table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.eval.benchmarks import BENCHMARKS, VISUAL
from llava.eval.scoring.report import Report, read_report
from llava.tables import markdown_table

NONE = "–"


def read_results(folder: Path) -> dict[str, Report]:
    """A checkpoint's scores by the name of the benchmark, from the JSON files of its results folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of results; bash scripts/eval/all.sh CHECKPOINT makes one")
    files = {benchmark.name: folder / f"{benchmark.name}.json" for benchmark in BENCHMARKS}
    found = {name: read_report(file) for name, file in files.items() if file.is_file()}
    if not found:
        names = ", ".join(file.name for file in files.values())
        raise ValueError(f"{folder} holds no score; expected some of {names}")
    return found


def average(results: Mapping[str, Report]) -> tuple[float, int] | None:
    """Mean of the visual benchmarks' headlines, and their number; None without any."""
    values = [results[name].headline.value for name in VISUAL if name in results]
    return (sum(values) / len(values), len(values)) if values else None


def row(results: Mapping[str, Report]) -> dict[str, Any]:
    """One checkpoint's table row: heading -> value (shares in percent, perplexity as it is; None if not measured).

    A benchmark that is not the paper's has an entry only if it was measured. `average` is over those of the eight
    visual benchmarks that were measured; `average_over` is their number.
    """
    mean = average(results)
    values: dict[str, Any] = {}
    for benchmark in BENCHMARKS:
        if benchmark.name == "mmlu":
            values["average"] = 100 * mean[0] if mean else None
            values["average_over"] = mean[1] if mean else 0
        report = results.get(benchmark.name)
        if report is not None:
            values[benchmark.column] = report.headline.value * (100 if report.unit == "share" else 1)
        elif benchmark.paper:
            values[benchmark.column] = None
    return values


def checkpoints_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows under the paper's headings; an average over fewer than all eight benchmarks is marked."""
    others = [b.column for b in BENCHMARKS if not b.paper and any(b.column in values for values in rows.values())]
    headings = [heading for heading in row({}) if heading != "average_over"] + others
    lines = []
    for name, values in rows.items():
        cells = [NONE if values.get(heading) is None else f"{values[heading]:.2f}" for heading in headings]
        if values["average"] is not None and values["average_over"] < len(VISUAL):
            cells[headings.index("average")] += f" (of {values['average_over']})"
        lines.append([name, *cells])
    return markdown_table(["", *headings], lines)
