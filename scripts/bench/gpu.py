"""All figures of one GPU in at most 10 minutes, as one Markdown table: scripts/bench/gpu.sh runs it.

`python scripts/bench/gpu.py --output FOLDER [--budget 560] [--preset tiny --device cpu --dtype fp32]`

Rows in order of importance: equality of what only a GPU runs; training with plain kernels, with Liger's; answers;
answers of models with fewer layers; training with compiled layers. For 25% of the layers every combination of
recomputation, padding and kernels is measured, for 50% and all layers the defaults and what upstream does.

A row that fails shows its error, and the others go on: rows of one kind run in one process, and after an error in a new
one. After the same error in two rows of a kind, its other rows are left out. FOLDER gets gpu.md and gpu.json, written
after each row, and a journal: the same command again measures what is missing, also after a kill. Rows that are left
out, or no longer fit the time, are listed as not measured.
"""

import argparse
import gc
import json
import re
import shlex
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[2]))

from llava.files import write_json, written_whole
from llava.flags import Parser, positive, run_program
from llava.journal import Journal
from llava.tables import markdown_table
from scripts.bench import train_step
from scripts.bench.gpu_answers import ANSWERS, PRUNED
from scripts.bench.gpu_checks import CHECKS
from scripts.bench.machine import gpu, versions

_MARK = "row measured: "
_SHORTEST = 10
"""Seconds that must be left to begin a row."""
_SAME_ERRORS = 2
"""After as many rows of a kind with the same error, the others of the kind are left out."""
_PACKAGES = ("torch", "transformers", "peft", "triton", "liger-kernel", "bitsandbytes", "flash-attn")
_SETTINGS = ("preset", "device", "dtype", "rank", "steps")

# Layers, --checkpointing and whether rows are padded. The first one is what upstream does.
_PLAIN = (
    *(("all", "true", True), ("all", "auto", False), ("25%", "auto", False), ("25%", "true", False)),
    *(("25%", "true", True), ("25%", "auto", True), ("50%", "auto", False), ("all", "true", False)),
    *(("all", "auto", True), ("50%", "true", False)),
)
_FASTER = (
    *(("25%", "auto", False), ("all", "auto", False), ("25%", "true", False), ("25%", "auto", True)),
    *(("25%", "true", True), ("50%", "auto", False)),
)
_SMALL_DEVICE = 40
"""GiB of a row where `auto` has to recompute some of the 7B shape's layers."""


@dataclass(frozen=True)
class Row:
    part: str
    name: str
    kind: str
    """Rows of one kind are measured in one process."""
    measure: Callable[[argparse.Namespace], dict[str, Any]]

    @property
    def key(self) -> str:
        return f"{self.part}: {self.name}"


def training(layers: str, checkpointing: str, padded: bool, kernels: str, memory: int | None = None) -> Row:
    layers_of = {"all": "all layers"}.get(layers, f"{layers} of layers")
    names = [layers_of, {"auto": "recompute auto", "true": "recompute all"}[checkpointing]]
    names += ["padded" if padded else "no padding"]
    names += [f"kernels {kernels}"] * (kernels != "none") + [f"{memory} GiB"] * bool(memory)
    flags = ["--tune-layers", layers if layers == "all" else f"sparse-uniform:{layers}", "--lengths", "mixed"]
    flags += ["--label-only", "--checkpointing", checkpointing, "--kernels", kernels]
    flags += ["--padding-free"] * (not padded) + ["--memory", str(memory)] * bool(memory)
    return Row("training", ", ".join(names), f"training {kernels}", partial(_train, flags))


def _train(flags: list[str], args: argparse.Namespace) -> dict[str, Any]:
    shared = [word for name in _SETTINGS for word in (f"--{name}", str(getattr(args, name)))]
    found = train_step.measure(train_step.make_parser().parse_args([*shared, *flags]))
    if not args.device.startswith("cuda"):
        # Of the whole process, with the rows before.
        del found["peak_gib"]
    depth = train_step.PRESETS[args.preset]["layers"]
    note = f"loss {found.pop('loss'):.4f}; {found.pop('recomputed')} of {depth} layers recomputed"
    return found | {"speed": found.pop("samples_per_second"), "unit": "samples/s", "note": note}


ROWS = (
    *(Row("correctness", name, "correctness", measure) for name, measure in CHECKS.items() if "compile" not in name),
    *(training(*row, "none") for row in _PLAIN),
    training("25%", "auto", False, "none", _SMALL_DEVICE),
    *(training(*row, "liger") for row in _FASTER),
    *(Row("answers", name, "answers", measure) for name, measure in ANSWERS.items()),
    *(Row("pruned", name, "answers", measure) for name, measure in PRUNED.items()),
    *(Row("correctness", name, "compile", measure) for name, measure in CHECKS.items() if "compile" in name),
    *(training(*row, "compile") for row in _FASTER),
)


def work(args: argparse.Namespace) -> None:
    """Measures the rows whose keys come in, a line each; ends after an error that may leave the device unusable."""
    transformers.utils.logging.disable_progress_bar()
    rows = {row.key: row for row in ROWS}
    on_gpu = args.device.startswith("cuda")
    for line in sys.stdin:
        try:
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            found = rows[line.strip()].measure(args)
            if on_gpu:
                found = {"peak_gib": torch.cuda.max_memory_allocated() / 2**30} | found
        except Exception as error:
            text = next(iter(str(error).strip().splitlines()), "")
            found = {"error": f"{type(error).__name__}: {text}"}
            # A refusal, such as of a package that is not installed, leaves the device as it was.
            if not isinstance(error, ValueError | ImportError):
                traceback.print_exc()
                found["ended"] = True
        print(f"{_MARK}{json.dumps(found)}", flush=True)
        if "ended" in found:
            return
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()
        # What was compiled for one model counts against the limit of the next.
        torch.compiler.reset()


class Worker:
    """A process that measures rows of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        command = [sys.executable, __file__, *sys.argv[1:], "--worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, row: Row, seconds: float) -> dict[str, Any]:
        """What the row found, or its `error`, and whether the process has `ended`: it does after these seconds."""
        late = threading.Event()
        timer = threading.Timer(seconds, lambda: (late.set(), self.process.terminate()))
        timer.start()
        try:
            self.process.stdin.write(f"{row.key}\n")
            self.process.stdin.flush()
            for line in self.process.stdout:
                before, mark, found = line.partition(_MARK)
                if mark:
                    return json.loads(found)
                print(before, end="", flush=True)
        except BrokenPipeError:
            pass
        finally:
            timer.cancel()
        status = self.process.wait()
        why = f"took longer than {seconds:.0f} s" if late.is_set() else f"ended with status {status}"
        return {"error": why, "ended": True}

    def end(self) -> None:
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()


def run(args: argparse.Namespace) -> None:
    end = time.monotonic() + args.budget
    hardware, driver = gpu() if args.device.startswith("cuda") else ("CPU", None)
    settings = {name: getattr(args, name) for name in _SETTINGS} | {"hardware": hardware}
    settings["versions"] = {"CUDA": torch.version.cuda or "none"} | versions(_PACKAGES)
    # Each row has its driver: another machine with the same GPU measures what is missing.
    of_machine = {"driver": driver} if driver else {}
    journal = Journal(args.output / "gpu.md", settings)
    entries, worker = journal.entries, None
    errors, left_out, reasons = Counter(), {}, {}
    try:
        for row in ROWS:
            known = entries.get(row.key)
            if not re.search(args.only, row.key) or (known and not (args.retry and "error" in known)):
                continue
            if row.kind in left_out:
                reasons[row.key] = left_out[row.kind]
                continue
            # As long as the one before it, which says little after the first of a process.
            usual = [entries[r.key]["seconds"] for r in ROWS if r.kind == row.kind and r.key in entries]
            left = end - time.monotonic()
            if left < max([_SHORTEST, *usual[-1:]]):
                continue
            if worker is None or worker.kind != row.kind:
                if worker:
                    worker.end()
                worker = Worker(row.kind)
            begin = time.monotonic()
            found = worker.measure(row, min(args.limit, left))
            if found.pop("ended", False):
                worker.end()
                worker = None
            seconds = time.monotonic() - begin
            if seconds >= left:
                # The time was over, which says nothing about the row.
                break
            journal.add({row.key: found | of_machine | {"seconds": round(seconds, 1)}})
            print(f"{row.key}: {found.get('error') or _speed(found) or found['note']} ({seconds:.0f} s)", flush=True)
            error = found.get("error")
            errors[row.kind, error] += 1
            if error and errors[row.kind, error] == _SAME_ERRORS:
                left_out[row.kind] = f"not measured: {_SAME_ERRORS} other rows of its kind ended with {error}"
            write(args.output, settings, entries, reasons)
    finally:
        if worker:
            worker.end()
    write(args.output, settings, entries, reasons)
    missing = sum(row.key not in entries for row in ROWS)
    print(f"{args.output / 'gpu.md'}: {len(ROWS) - missing} rows" + f", {missing} not measured" * bool(missing))


def _speed(found: dict[str, Any]) -> str:
    return f"{found['speed']:.2f} {found['unit']}" if "speed" in found else ""


def write(output: Path, settings: dict[str, Any], entries: dict[str, dict[str, Any]], reasons: dict[str, str]) -> None:
    """gpu.md and gpu.json, each written aside and renamed; `reasons`: why rows are left out."""
    write_json(output / "gpu.json", {"settings": settings, "rows": entries})
    head = ("part", "variant", "speed", "ratio", "TFLOP/s", "peak GiB", "estimated GiB", "note")
    rows, first = [], {}
    for row in ROWS:
        found = entries.get(row.key, {"note": reasons.get(row.key, "not measured")})
        ratio = ""
        if "speed" in found:
            ratio = f"{found['speed'] / first.setdefault(row.part, found['speed']):.2f}"
        numbers = (f"{found[name]:.2f}" if name in found else "" for name in ("tflops", "peak_gib", "estimated_gib"))
        rows.append((row.part, row.name, _speed(found), ratio, *numbers, found.get("error") or found["note"]))
    packages = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    chosen = ", ".join(f"{name} {settings[name]}" for name in _SETTINGS)
    drivers = sorted({found["driver"] for found in entries.values() if "driver" in found})
    hardware = ", driver ".join([settings["hardware"], *drivers])
    lines = (
        f"{hardware}; {packages}; {time.strftime('%Y-%m-%d')}",
        f"`python {shlex.join(sys.argv)}`: {chosen}. Ratios are to the first measured row of a part. TFLOP/s count "
        "what is needed without padding and recomputing. The estimate is that of `--gradient_checkpointing auto`.",
        markdown_table(head, rows),
    )
    with written_whole(output / "gpu.md") as aside:
        aside.write_text("\n\n".join(lines), encoding="utf-8")


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for gpu.md, gpu.json and the journal")
    parser.add_argument("--preset", choices=train_step.PRESETS, default="7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--rank", type=positive, default=128)
    parser.add_argument("--steps", type=positive, default=6, help="timed steps of a training row")
    parser.add_argument("--budget", type=positive, default=560, help="seconds for everything")
    parser.add_argument("--limit", type=positive, default=150, help="seconds for one row")
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="rows whose 'part: variant' holds this regular expression"
    )
    parser.add_argument("--retry", action="store_true", help="measure rows again that failed")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
    else:
        run(args)


if __name__ == "__main__":
    run_program(main)
