"""Runs the paper's whole evaluation on one checkpoint and writes the paper's table row (scripts/eval/all.sh).

Each benchmark runs in a process of its own, as `scripts/eval/NAME.sh` does; its score goes to RESULTS/NAME.json. A
finished benchmark is skipped as long as checkpoint, data, flags, variables and rule are the same.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.conversation import OWN_TEMPLATE
from llava.eval.benchmarks import BENCHMARKS, BY_NAME, DATA, Benchmark
from llava.eval.benchmarks.base import answers_name
from llava.eval.suite.program_flags import check_program_flags, checkpoint_flags
from llava.eval.suite.summary import FILES, STATE, read_state, rule_of, summarise
from llava.files import write_json
from llava.flags import Parser, run_command, run_program
from llava.journal import settings_digest
from llava.names import model_name
from llava.outputs import REPORT, check_files

if TYPE_CHECKING:
    # Flags are checked without waiting for torch.
    from llava.checkpoint.opened import Checkpoint

SETTINGS = ("CONV", "MISSING", *(setting.name for benchmark in BENCHMARKS for setting in benchmark.settings))
"""Environment variables that change a score."""


class AllError(ValueError):
    """Nothing can be run, or something failed."""


def fingerprint(
    checkpoint: "Checkpoint", benchmark: Benchmark, flags: Sequence[str], data: Path = DATA
) -> dict[str, Any]:
    """What a score depends on. Questions are recorded by size and time, as reading them takes minutes."""
    from llava.checkpoint.identity import file_state

    questions = [data / file for file in benchmark.data]
    # Scores of plain language models from before they were asked in their own template are made again.
    own = checkpoint.question_template == OWN_TEMPLATE and benchmark.score is not None
    return {
        **({"question_template": OWN_TEMPLATE} if own else {}),
        "checkpoint": file_state(checkpoint, checkpoint_flags(flags).vision_tower),
        "questions": [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in questions],
        "flags": list(flags),
        "environment": {key: os.environ[key] for key in SETTINGS if key in os.environ},
        **rule_of(benchmark),
    }


def runnable(
    names: Sequence[str] | None, require_all: bool, data: Path = DATA, questions: Mapping[str, str] | None = None
) -> list[Benchmark]:
    """The benchmarks that have their data; the names of the others are printed.

    Args:
        names: default: the paper's benchmarks.
        questions: benchmark -> another question file, by its name without the suffix.
    """
    wanted = [BY_NAME[name] for name in names] if names else [b for b in BENCHMARKS if b.paper]
    wanted = [b.asking(questions[b.name]) if b.name in (questions or {}) else b for b in wanted]
    lacking = {b.name: missing for b in wanted if (missing := b.missing_data(data))}
    for name, missing in lacking.items():
        print(f"NO DATA for {name}: {', '.join(map(str, missing))} is missing", flush=True)
    if lacking:
        readme = f"{data}/README.md says where to get it"
        print(f"{len(lacking)} of {len(wanted)} benchmarks have no data; {readme}", flush=True)
        if require_all:
            raise AllError(f"--require-all: no data for {', '.join(lacking)}")
    ready = [benchmark for benchmark in wanted if benchmark.name not in lacking]
    if not ready:
        raise AllError(f"no benchmark has its data under {data}")
    return ready


def run(
    checkpoint: "Checkpoint", benchmarks: Sequence[Benchmark], results: Path, flags: Sequence[str], data: Path
) -> list[str]:
    """Runs what is not done; returns the names of those that failed.

    An old score stays until a new one replaces it. Until then, and after a failure, the summary leaves it out.
    """
    failed = []
    prints = {b.name: fingerprint(checkpoint, b, flags, data) for b in benchmarks}
    if unfinished := {name: "not finished" for name, now in prints.items() if not _is_done(results, name, now)}:
        summarise(results, prints[benchmarks[0].name]["checkpoint"], unfinished)
    for number, benchmark in enumerate(benchmarks, start=1):
        now = fingerprint(checkpoint, benchmark, flags, data)
        where = f"[{number}/{len(benchmarks)}] {benchmark.name}"
        if _is_done(results, benchmark.name, now):
            print(f"{where}: done before", flush=True)
            continue
        if benchmark.name in read_state(results):
            what = "the checkpoint, the data, the flags, a variable or the rule"
            print(f"{where}: {what} has changed; it is run again", flush=True)
        print(f"{where}: begins", flush=True)
        begin = time.monotonic()
        report = results / f"{benchmark.name}.json"
        # The name tells what it depends on: next to it lies the journal of a program that was interrupted.
        aside = results / f".{benchmark.name}.{settings_digest(now)[:12]}.json"
        # A folder or a question file of one benchmark does not belong to the others.
        environment = {key: value for key, value in os.environ.items() if key not in ("DATA", "QUESTIONS", "IMAGES")}
        python = os.environ.get("PYTHON") or sys.executable
        # NAME of the answers tells folders of one name apart, such as the results of several studies.
        environment |= {"RESULT": str(aside), "NAME": answers_name(os.environ) or results.name, "PYTHON": python}
        if benchmark != BY_NAME[benchmark.name]:
            environment["QUESTIONS"] = Path(benchmark.data[0]).stem
        command = [python, "-m", "llava.eval.suite.benchmark", benchmark.name, checkpoint.name, *flags]
        code = run_command(command, env=environment)
        if code or not aside.is_file():
            print(f"{where}: FAILED ({' '.join(command)} ended with {code}); continuing with the others", flush=True)
            failed.append(benchmark.name)
            aside.unlink(missing_ok=True)
            continue
        os.replace(aside, report)
        # Of runs with other settings that were interrupted.
        for left in results.glob(f".{benchmark.name}.*.json*"):
            left.unlink(missing_ok=True)
        # Read again: another run may have finished another benchmark meanwhile.
        write_json(results / STATE, read_state(results) | {benchmark.name: now})
        print(f"{where}: done in {time.monotonic() - begin:.0f} s; the score is now {report}", flush=True)
    return failed


def _is_done(results: Path, name: str, now: Mapping[str, Any]) -> bool:
    return read_state(results).get(name) == now and (results / f"{name}.json").is_file()


def main() -> None:
    parser = Parser(description="The paper's whole evaluation on one checkpoint", allow_abbrev=False)
    parser.add_argument("model_path", metavar="CHECKPOINT")
    parser.add_argument("--results", type=Path, help="folder; default: playground/data/eval/results/NAME")
    parser.add_argument("--data", type=Path, default=DATA, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", choices=list(BY_NAME), help="these benchmarks only")
    example = "e.g. tdiuc=questions.sample-20000"
    parser.add_argument("--questions", nargs="+", metavar="NAME=FILE", default=[], help=example)
    parser.add_argument("--require-all", action="store_true", help="stop at once if a benchmark lacks its data")
    args, flags = parser.parse_known_args()
    questions = dict(argument.partition("=")[::2] for argument in args.questions)
    wrong = [f"{name}={file}" for name, file in questions.items() if name not in BY_NAME or not file]
    if wrong:
        raise AllError(f"--questions takes NAME=FILE, NAME one of {', '.join(BY_NAME)}; not {', '.join(wrong)}")
    benchmarks = runnable(args.only, args.require_all, args.data, questions)
    check_program_flags(benchmarks, flags, own=parser.options)

    from llava.checkpoint.card import add_scores
    from llava.checkpoint.folder import open_checkpoint

    checkpoint = open_checkpoint(args.model_path, checkpoint_flags(flags).model_base)
    # A published model and a folder of one's own with its name stay apart.
    local = Path(args.model_path).is_dir()
    name = model_name(args.model_path) if local else args.model_path.replace("/", "_")
    results = args.results or args.data / "results" / name
    read_state(results)
    files = {**FILES, **{f"{benchmark.name}.json": REPORT for benchmark in benchmarks}}
    check_files({f"--results: {name}": (results / name, kind) for name, kind in files.items()})
    results.mkdir(parents=True, exist_ok=True)
    failed = run(checkpoint, benchmarks, results, flags, args.data)
    state = fingerprint(checkpoint, benchmarks[0], flags, args.data)["checkpoint"]
    text = summarise(results, state, dict.fromkeys(failed, "failed when it was run last"))
    if len(failed) == len(benchmarks):
        raise AllError(f"every benchmark failed: {', '.join(failed)}")
    print(f"\n{text}")
    card = " and in the checkpoint's model card" if add_scores(checkpoint.path, text) else ""
    print(f"The scores are in {results}: summary.md, summary.json and NAME.json for each benchmark{card}")
    if failed:
        raise AllError(f"without {', '.join(failed)}, which failed; type the same command to try again")


if __name__ == "__main__":
    run_program(main)
