"""The paper's benchmarks in the order of its tables, and one checkpoint's scores as a row of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava.eval.scoring.report import Report, read_report

NONE = "–"


@dataclass(frozen=True)
class Benchmark:
    """A column of the table.

    Attributes:
        name: of `scripts/eval/NAME.sh` and of `NAME.json` among a checkpoint's results.
        column: its heading in the paper.
        data: files under playground/data/eval without which it cannot be run; the first holds the questions.
        visual: whether it belongs to the paper's average, which is over the eight visual benchmarks.
        paper: whether it is one of the paper's; others have a column only where they were measured.
        program: the module of llava.eval that answers it, which takes the flags of its script.
    """

    name: str
    column: str
    data: tuple[str, ...]
    visual: bool = True
    paper: bool = True
    program: str = "model_vqa_loader"

    def asking(self, questions: str) -> "Benchmark":
        """The same with another question file of the same folder: its name without the suffix."""
        first = Path(self.data[0])
        return replace(self, data=(str(first.with_name(f"{questions}{first.suffix}")), *self.data[1:]))


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark("ocrvqa", "OCRVQA", ("ocrvqa/questions.jsonl", "ocrvqa/dataset.json")),
    Benchmark("docvqa", "DocVQA", ("docvqa/questions.jsonl", "docvqa/val_v1.0_withQT.json")),
    Benchmark("refcocog", "RefCOCOg", ("refcocog/questions.jsonl", "refcocog/annotations.json")),
    Benchmark("tdiuc", "TDIUC", ("tdiuc/questions.jsonl", "tdiuc/mscoco_val2014_annotations.json")),
    Benchmark("mmbench", "MMBench", ("mmbench/mmbench_dev_20230712.tsv",), program="model_vqa_mmbench"),
    Benchmark("gqa", "GQA", ("gqa/llava_gqa_testdev_balanced.jsonl", "gqa/data/testdev_balanced_questions.json")),
    Benchmark(
        "scienceqa",
        "ScienceQA",
        ("scienceqa/llava_test_CQM-A.json", "scienceqa/problems.json"),
        program="model_vqa_science",
    ),
    Benchmark("textvqa", "TextVQA", ("textvqa/llava_textvqa_val_v051_ocr.jsonl", "textvqa/TextVQA_0.5.1_val.json")),
    Benchmark(
        "mmlu",
        "MMLU",
        ("mmlu/questions.jsonl", "mmlu/shots.json", "mmlu/annotations.json"),
        visual=False,
        program="model_mmlu",
    ),
    Benchmark("bbh", "BIG-bench-hard", ("bbh/questions.jsonl", "bbh/annotations.json"), visual=False),
    Benchmark("perplexity", "perplexity", ("perplexity/wikitext-2-valid.txt",), visual=False, program="perplexity"),
    Benchmark(
        "easy_vqa", "easy-VQA", ("easy_vqa/questions.jsonl", "easy_vqa/annotations.json"), visual=False, paper=False
    ),
)
BY_NAME = {benchmark.name: benchmark for benchmark in BENCHMARKS}
VISUAL = tuple(benchmark.name for benchmark in BENCHMARKS if benchmark.visual)


def missing_data(benchmark: Benchmark, root: Path) -> list[Path]:
    """The files that a benchmark lacks under `root`."""
    return [root / file for file in benchmark.data if not (root / file).is_file()]


def read_results(folder: Path) -> dict[str, Report]:
    """A checkpoint's scores by the name of the benchmark, from the JSON files of its results folder.

    Raises:
        ValueError: no such folder, no score in it, or a broken one.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of results; bash scripts/eval/all.sh CHECKPOINT makes one")
    found = {
        b.name: read_report(folder / f"{b.name}.json") for b in BENCHMARKS if (folder / f"{b.name}.json").is_file()
    }
    if not found:
        names = ", ".join(f"{benchmark.name}.json" for benchmark in BENCHMARKS)
        raise ValueError(f"{folder} holds no score; expected some of {names}")
    return found


def average(results: Mapping[str, Report]) -> tuple[float, int] | None:
    """Mean of the visual benchmarks' headlines and over how many; None without any."""
    values = [results[name].headline.value for name in VISUAL if name in results]
    return (sum(values) / len(values), len(values)) if values else None


def row(results: Mapping[str, Report]) -> dict[str, Any]:
    """One checkpoint's table row: heading -> value (shares in percent, perplexity as it is; None where not measured).

    A benchmark that is not the paper's has an entry only where it was measured.
    `average` is over the visual benchmarks that were measured; `average_over` says how many of the eight they are.
    """
    mean = average(results)
    values: dict[str, Any] = {}
    for benchmark in BENCHMARKS:
        if benchmark.name == "mmlu":
            values["average"] = 100 * mean[0] if mean else None
            values["average_over"] = mean[1] if mean else 0
        report = results.get(benchmark.name)
        if report is None and not benchmark.paper:
            continue
        values[benchmark.column] = None if report is None else _scaled(report)
    return values


def _scaled(report: Report) -> float:
    return report.headline.value * (100 if report.unit == "share" else 1)


def markdown_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows under the paper's headings; an average over fewer than all eight says so."""
    known = [*row({}), *(benchmark.column for benchmark in BENCHMARKS if not benchmark.paper)]
    headings = [
        h for h in known if h != "average_over" and (h in row({}) or any(h in values for values in rows.values()))
    ]
    lines = [f"| | {' | '.join(headings)} |", "|---" * (len(headings) + 1) + "|"]
    for name, values in rows.items():
        cells = [NONE if values.get(heading) is None else f"{values[heading]:.2f}" for heading in headings]
        if values["average"] is not None and values["average_over"] < len(VISUAL):
            cells[headings.index("average")] += f" (of {values['average_over']})"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
