"""Compares checkpoints: the paper's table, percent kept of the reference, paired intervals, a picture.

`python -m llava.eval.suite.compare ALL=RESULTS SPARSE=RESULTS ... --output FOLDER`, where RESULTS is a folder of
`scripts/eval/all.sh`. The first is the reference (the all-layers model), unless --reference names another.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmarks import BENCHMARKS, BY_NAME, VISUAL
from llava.eval.scoring.report import Report
from llava.eval.suite.compare_picture import draw
from llava.eval.suite.paired import (
    ComparisonError,
    PairedDraws,
    check_comparable,
    is_mean_of_questions,
    mean_of_draws,
    paired_draws,
    perplexity_draws,
    questions_of,
)
from llava.eval.suite.summary import left_out
from llava.eval.suite.table import NONE, checkpoints_table, read_results, row
from llava.files import write_json, written_whole
from llava.flags import Parser, run_program
from llava.outputs import PICTURE, FileKind, check_files
from llava.tables import markdown_table

FILES = {
    "comparison.json": FileKind("a comparison", keys=frozenset({"reference", "rows", "differences"})),
    "comparison.md": FileKind("a comparison as a table", ".md", begins=b"# Comparison"),
    "comparison.png": PICTURE,
}


def compare(results: Mapping[str, Mapping[str, Report]], reference: str, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that the table and the picture show.

    Args:
        results: checkpoint -> benchmark -> report.
        reference: the checkpoint that the others are compared with.

    Returns:
        `reference`; `rows` (checkpoint -> table row); `differences`: checkpoint -> column -> `value`, `low`, `high` (in
        points; perplexity in its own unit, with the `ratio`), `questions`, `interval` (False: no `low` and `high`);
        `kept`: checkpoint -> `value`, `low`, `high` in percent of the reference's average, over `benchmarks`, or None
        (`_kept`); `notes`.
    """
    notes = list(notes)
    for benchmark in BENCHMARKS:
        have = {name: results[name][benchmark.name] for name in results if benchmark.name in results[name]}
        if reference in have:
            check_comparable(benchmark.column, {reference: have[reference], **have})
        if have and len(have) < len(results):
            lacking = ", ".join(name for name in results if name not in have)
            notes.append(f"{benchmark.column} is not measured for {lacking}")
        for name, report in have.items():
            notes += [f"{benchmark.column}, {name}: {text}" for text in report.warnings]
    theirs = results[reference]
    differences: dict[str, dict[str, Any]] = {name: {} for name in results if name != reference}
    kept: dict[str, Any] = {}
    for name, found in differences.items():
        ours = results[name]
        draws: dict[str, PairedDraws] = {}
        shared = [b for b in BENCHMARKS if b.name in ours and b.name in theirs]
        if not shared:
            raise ComparisonError(f"{name} and {reference} have no benchmark in common")
        for seed, b in enumerate(shared):
            found[b.column], drawn = _difference(ours[b.name], theirs[b.name], seed)
            if drawn is not None:
                draws[b.name] = drawn
        kept[name] = _kept(ours, theirs, draws)
    return {
        "reference": reference,
        "rows": {name: row(reports) for name, reports in results.items()},
        "differences": differences,
        "kept": kept,
        "notes": list(dict.fromkeys(notes)),
    }


def _difference(ours: Report, theirs: Report, seed: int) -> tuple[dict[str, Any], PairedDraws | None]:
    scale = 100 if ours.unit == "share" else 1
    value = scale * (ours.headline.value - theirs.headline.value)
    entry: dict[str, Any] = {"value": value, "questions": len(questions_of(ours)), "interval": False}
    if "pieces" in ours.details:
        draws = perplexity_draws(ours, theirs, seed=seed)
        (low, high), ratio = draws.difference(), draws.ratio()
        entry["ratio"] = {"value": ours.headline.value / theirs.headline.value}
        if len(questions_of(ours)) > 1:
            entry |= {"low": low, "high": high, "interval": True}
            entry["ratio"] |= {"low": ratio[0], "high": ratio[1]}
        return entry, None
    if not (is_mean_of_questions(ours) and is_mean_of_questions(theirs)):
        return entry, None
    # With a seed per benchmark their draws are independent of each other.
    draws = paired_draws(ours.per_question, theirs.per_question, seed=seed)
    low, high = draws.difference()
    # An interval of no width (all differences equal, or a single question) has no meaning.
    return (entry | {"low": scale * low, "high": scale * high, "interval": True} if low < high else entry), draws


def _kept(
    ours: Mapping[str, Report], theirs: Mapping[str, Report], draws: Mapping[str, PairedDraws]
) -> dict[str, Any] | None:
    """Share of the reference's average over the visual benchmarks that both have; None without any, or if it is 0."""
    names = [name for name in VISUAL if name in ours and name in theirs]
    base = sum(theirs[name].headline.value for name in names)
    if base == 0:
        return None
    value = 100 * sum(ours[name].headline.value for name in names) / base
    entry: dict[str, Any] = {"value": value, "benchmarks": names, "interval": False}
    if all(name in draws for name in names):
        ratio = mean_of_draws([draws[name] for name in names]).ratio()
        if ratio is not None and ratio[0] < ratio[1]:
            entry |= {"low": 100 * ratio[0], "high": 100 * ratio[1], "interval": True}
    return entry


def markdown(comparison: Mapping[str, Any]) -> str:
    reference = comparison["reference"]
    lines = ["# Comparison", "", checkpoints_table(comparison["rows"])]
    visual = {b.column for b in BENCHMARKS if b.visual}
    shared = {name: bool(visual & found.keys()) for name, found in comparison["differences"].items()}
    if any(shared.values()):
        lines += [f"Percent of {reference} kept, over the visual benchmarks that both have (95% interval, paired):", ""]
        kept = comparison["kept"].items()
        lines += [f"- {name}: {_kept_text(entry, reference, shared[name])}" for name, entry in kept]
        lines.append("")
    columns = [b.column for b in BENCHMARKS if any(b.column in d for d in comparison["differences"].values())]
    rows = [
        [name, *(_cell(entries[column]) if column in entries else NONE for column in columns)]
        for name, entries in comparison["differences"].items()
    ]
    lines += [
        f"Difference to {reference}, question by question, with its 95% interval (points; perplexity as it is, and as "
        "a ratio):",
        "",
        markdown_table(["", *columns], rows).rstrip("\n"),
    ]
    if comparison["notes"]:
        lines += ["", *(f"- {note}" for note in comparison["notes"])]
    return "\n".join(lines) + "\n"


def _kept_text(entry: Mapping[str, Any] | None, reference: str, shared: bool) -> str:
    if entry is None:
        return f"the average of {reference} is 0" if shared else f"no visual benchmark in common with {reference}"
    among = "" if len(entry["benchmarks"]) == len(VISUAL) else f", over {', '.join(entry['benchmarks'])} only"
    return f"{entry['value']:.2f}%{_interval(entry)}{among}"


def _cell(entry: Mapping[str, Any]) -> str:
    ratio = entry.get("ratio")
    times = f", x{ratio['value']:.3f}{_interval(ratio, 3)}" if ratio else ""
    return f"{entry['value']:+.2f}{_interval(entry)}{times}"


def _interval(entry: Mapping[str, Any], digits: int = 2) -> str:
    return f" ({entry['low']:.{digits}f} to {entry['high']:.{digits}f})" if "low" in entry else " (no interval)"


def named_results(arguments: list[str]) -> dict[str, Path]:
    """Folders by name, from `NAME=FOLDER` or `FOLDER` (named by its last part)."""
    named: dict[str, Path] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        path = Path(folder if equals else argument)
        name = name if equals else path.resolve().name
        if name in named:
            raise ComparisonError(f"two results are called {name}; give names: NAME=FOLDER")
        named[name] = path
    return named


def current_results(folders: Mapping[str, Path]) -> tuple[dict[str, dict[str, Report]], list[str]]:
    """The scores in each folder, and notes on old ones, which are left out."""
    results, notes = {}, []
    for name, folder in folders.items():
        old = left_out(folder)
        reports = read_results(folder)
        results[name] = {key: report for key, report in reports.items() if key not in old}
        notes += [f"{BY_NAME[key].column}, {name}: left out: {old[key]}" for key in reports if key in old]
        if not results[name]:
            raise ComparisonError(f"{folder} holds old scores only ({'; '.join(old.values())}); run all.sh again")
    return results, notes


def main() -> None:
    parser = Parser(description="Several checkpoints side by side")
    parser.add_argument("results", nargs="+", metavar="[NAME=]FOLDER", help="results of scripts/eval/all.sh")
    parser.add_argument("--reference", help="which is the all-layers model; default: the first")
    parser.add_argument("--only", nargs="+", choices=[b.name for b in BENCHMARKS], help="these benchmarks only")
    parser.add_argument("--output", type=Path, default=Path("comparison"), help="folder for the three files")
    args = parser.parse_args()
    files = {f"--output: {kind.title}": (args.output / name, kind) for name, kind in FILES.items()}
    check_files(files)
    folders = named_results(args.results)
    if len(folders) < 2:
        raise ComparisonError("a comparison needs at least two results")
    reference = args.reference or next(iter(folders))
    if reference not in folders:
        raise ComparisonError(f"--reference {reference} is not among {', '.join(folders)}")
    results, notes = current_results(folders)
    if args.only:
        results = {n: {k: v for k, v in reports.items() if k in args.only} for n, reports in results.items()}
    comparison = compare(results, reference, notes)
    text = markdown(comparison)
    write_json(args.output / "comparison.json", comparison)
    with written_whole(args.output / "comparison.md") as aside:
        aside.write_text(text, encoding="utf-8")
    draw(comparison, args.output / "comparison.png")
    print(text)
    print(f"The comparison is in {args.output}: comparison.md, comparison.json, comparison.png", flush=True)


if __name__ == "__main__":
    run_program(main, interrupted="")
