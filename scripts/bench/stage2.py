"""The quickstart's stage 2 in a few steps, as a new process, from any checkout of this repository."""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.flags import positive

ROOT = Path(__file__).parents[2]
_REQUIREMENTS = ("setup.py", "constraints.txt", "playground/requirements.txt")
_FALSE_PYTHON = """#!/bin/bash
# Notes its arguments, one call per line, and what stage 2 tells the allocator.
IFS=$'\\t'
[ -n "$DRY_RUN" ] || echo "$*" >> "$CALLS"
[[ "$*" != *--lora_enable* ]] || env | grep ^MALLOC_ > "$CALLS.malloc" || true
"""
_BATCH = 8
_STEP = re.compile(r"\{'loss'")
"""How the trainer's line about a step begins."""


@dataclass(frozen=True)
class Steps:
    """Seconds per step, medians over the steps after the first, and the loss of each step."""

    clock: float
    processor: float
    losses: tuple[float, ...]


def add_flags(parser: argparse.ArgumentParser, rounds: int) -> None:
    parser.add_argument("--out", type=Path, default=ROOT / "checkpoints/quickstart", help="where stage 1 is finished")
    parser.add_argument("--steps", type=positive, default=8)
    parser.add_argument("--rounds", type=positive, default=rounds)
    parser.add_argument("flags", nargs="*", metavar="-- FLAGS", help="further flags of the trainer")


def stage2_command(checkout: Path) -> tuple[dict[str, str], list[str]]:
    """The trainer's MALLOC_ variables and flags in a checkout's scripts/quickstart.sh.

    The script is run with a Python that only notes its calls. In the flags, the folder of its results is the word OUT.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python, calls, out = folder / "venv/bin/python", folder / "calls", folder / "out"
        python.parent.mkdir(parents=True)
        python.write_text(_FALSE_PYTHON)
        python.chmod(0o755)
        wanted = hashlib.sha256(b"".join((checkout / name).read_bytes() for name in _REQUIREMENTS))
        (folder / "venv/installed").write_text(f"{wanted.hexdigest()}  -\n")
        own = {"VENV": str(folder / "venv"), "OUT": str(out), "CALLS": str(calls)}
        command = ["bash", str(checkout / "scripts/quickstart.sh")]
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
        made = [line for line in calls.read_text().splitlines() if "--lora_enable" in line] if calls.exists() else []
        if done.returncode or not made:
            raise ValueError(f"{checkout}/scripts/quickstart.sh has no stage 2 with LoRA: {done.stderr.strip()}")
        malloc = (line.split("=", 1) for line in Path(f"{calls}.malloc").read_text().splitlines())
        return dict(malloc), [word.replace(str(out), "OUT") for word in made[0].split("\t")[1:]]


class Stage2:
    """Runs stage 2 of checkouts, all with the inputs of this one, on the same samples; `work` takes all files."""

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self._args, self._work, self._runs = args, work, 0
        projector = args.out / "pretrain/mm_projector.bin"
        if not projector.exists():
            raise ValueError(f"{projector} does not exist; run bash scripts/quickstart.sh until stage 1 is finished")
        records = json.loads((ROOT / "playground/data/easy_vqa/finetune.json").read_text())
        wanted = args.steps * _BATCH
        (work / "data.json").write_text(json.dumps(records[:: max(1, len(records) // wanted)][:wanted]))

    def run(self, checkout: Path, environment: Mapping[str, str] | None = None) -> Steps:
        """Runs the trainer of a checkout; the environment's settings of OpenMP are only those given."""
        self._runs += 1
        output = self._work / f"run{self._runs}"
        out = str(self._args.out.resolve())
        malloc, flags = stage2_command(checkout)
        flags = [re.sub("^OUT(?=/)", out, word) for word in flags]
        flags = [str(ROOT / word) if word.startswith("playground/") else word for word in flags]
        own = {
            "data_path": self._work / "data.json",
            # Each checkout writes its own features.
            "vision_feature_cache": self._work / f"features-{hashlib.sha256(str(checkout).encode()).hexdigest()[:8]}",
            "output_dir": output,
            "max_steps": self._args.steps,
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
        }
        flags += [text for name, value in own.items() for text in (f"--{name}", str(value))]
        command = [sys.executable, str(checkout / "llava/train/train_mem.py"), *flags, *self._args.flags]
        dropped = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
        inherited = {name: value for name, value in os.environ.items() if name not in dropped}
        # A cache of records of its own, too.
        inherited |= {"PYTHONPATH": str(checkout), "LLAVA_CACHE": str(self._work / "cache"), "PYTHONUNBUFFERED": "1"}
        marks = self._marks(command, inherited | malloc | dict(environment or {}), output.with_suffix(".log"))
        history = json.loads((output / "trainer_state.json").read_text())["log_history"]
        losses = tuple(entry["loss"] for entry in history if "loss" in entry)
        clock, processor = (_median_step(values) for values in zip(*marks, strict=True))
        return Steps(clock, processor, losses)

    @staticmethod
    def _marks(command: Sequence[str], environment: Mapping[str, str], log: Path) -> list[tuple[float, float]]:
        """Clock and processor seconds at the end of each step."""
        marks = []
        with (
            open(log, "w") as file,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment, cwd=log.parent
            ) as process,
        ):
            for line in process.stdout:
                if _STEP.match(line):
                    marks.append((time.perf_counter(), _processor_seconds(process.pid)))
                file.write(line)
        if process.returncode:
            raise ValueError(f"the trainer ended with status {process.returncode}; its output is in {log}")
        if len(marks) < 2:
            raise ValueError(f"the trainer made {len(marks)} steps, and at least 2 are measured; see {log}")
        return marks


def _median_step(marks: Sequence[float]) -> float:
    return statistics.median(after - before for before, after in itertools.pairwise(marks))


def _processor_seconds(pid: int) -> float:
    """Of a running process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def busy_loop() -> Iterator[None]:
    """One process that uses a whole core."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()
