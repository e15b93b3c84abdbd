"""state.json, summary.md and summary.json, which `llava.eval.suite.all` keeps next to a checkpoint's scores."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.eval.benchmarks import BENCHMARKS, Benchmark
from llava.eval.scoring.report import Report, read_report
from llava.eval.suite.table import checkpoints_table, row
from llava.files import write_json, written_whole
from llava.outputs import TABLE, FileKind

STATE = "state.json"
SUMMARY = "summary.json"
TEXT = "summary.md"
FILES = {SUMMARY: FileKind("a summary of scores", keys=frozenset({"model", "row"})), TEXT: TABLE}
"""The files that `summarise` writes."""


def read_state(results: Path) -> dict[str, dict[str, Any]]:
    """What each finished benchmark's score was made from, by the benchmark's name."""
    file = results / STATE
    if not file.is_file():
        return {}
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        state = error
    if not isinstance(state, dict) or not all(isinstance(entry, dict) for entry in state.values()):
        raise ValueError(
            f"{file} is broken, and with it the record of what is finished ({str(state)[:80]}); delete it and run "
            "again: answers are kept, only the scores are made again"
        )
    return state


def rule_of(benchmark: Benchmark) -> dict[str, str]:
    """What state.json records of the rule of a benchmark."""
    return {"rule": benchmark.rule} if benchmark.rule else {}


def summarise(results: Path, checkpoint: Any, unfinished: Mapping[str, str]) -> str:
    """Writes summary.md and summary.json; returns the Markdown.

    Args:
        checkpoint: its record in state.json; scores of another one are left out.
        unfinished: benchmark -> why it has no score of this run; an older score of it is left out.
    """
    state = read_state(results)
    reports: dict[str, Report] = {}
    left_out: dict[str, str] = {}
    lines: list[str] = []
    for benchmark in BENCHMARKS:
        name, file = benchmark.name, results / f"{benchmark.name}.json"
        if name in unfinished:
            older = f"; {file.name} is an older score" if file.is_file() else ""
            left_out[name] = unfinished[name] + older
        elif not file.is_file():
            continue
        elif name not in state:
            lines.append(f"- {benchmark.column}: not in the row: {STATE} does not say what {file.name} was made from")
        elif state[name].get("checkpoint") != checkpoint:
            left_out[name] = f"{file.name} is of other files than the checkpoint has now"
        elif state[name].get("rule", "") != benchmark.rule:
            left_out[name] = f"{file.name} is by an older rule; run it again, which scores the same answers"
        else:
            report = reports[name] = read_report(file)
            scale, sign = (100, "%") if report.unit == "share" else (1, "")
            measure = report.headline
            lines.append(
                f"- {benchmark.column}: {report.metric} {scale * measure.value:.2f}{sign} "
                f"{measure.interval_text(scale)}, {measure.samples} samples, "
                f"{100 * report.parse_failures / max(report.answers, 1):.2f}% of the replies unreadable"
            )
            lines += [f"  - {warning}" for warning in report.warnings]
        if name in left_out:
            lines.append(f"- {benchmark.column}: not in the row: {left_out[name]}")
    values = row(reports)
    text = "\n".join([checkpoints_table({results.name: values}), *lines]) + "\n"
    with written_whole(results / TEXT) as aside:
        aside.write_text(text, encoding="utf-8")
    write_json(results / SUMMARY, {"model": results.name, "row": values, "left_out": left_out})
    return text


def left_out(results: Path) -> dict[str, str]:
    """Benchmark -> why the last run left out its score in this folder."""
    file = results / SUMMARY
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")).get("left_out", {}))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{file} is broken ({error}); scripts/eval/all.sh writes it again") from error
