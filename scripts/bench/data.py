"""Start-up, memory of the records, and waiting for data, with as many samples as LLaVA-1.5's mix has.

    python scripts/bench/data.py --folder FOLDER [--step-seconds 1]

Makes a data set in FOLDER, and a tiny language model and tower with random weights and CLIP-336's image size; a later
run uses them again. FOLDER then holds about 2.5 GB. Each figure is measured in a new process, through the trainer's
entry:

- the start: seconds from the start of the process to the first step, at the first time (the JSON is converted), at the
  second, and resumed in the middle of the epoch. Each part is without the parts that it calls.
- memory of the records: what the trainer's reading of them adds to a process, private and mapped (RssAnon and RssFile
  in /proc/self/status). Mapped pages are shared by all processes, and the system takes them back when it needs memory.
- the samples per second that one process makes, by part.
- the share of time that steps wait for data, from the trainer's own line; a step is a pause of --step-seconds.
"""

import argparse
import json
import os
import shutil
import sys
import time
from functools import wraps
from pathlib import Path
from typing import Any

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

import llava.data.check
import llava.data.collate
import llava.data.dataset
import llava.data.records
import llava.train.plan
import llava.train.run
from llava.data.sampler import EpochSampler
from llava.devices import peak_memory, status_bytes
from llava.flags import Parser, positive, run_program
from llava.tables import text_table
from llava.train.llava_trainer import LLaVATrainer
from llava.train.train import train
from scripts.bench.beside_upstream import MODELS, make_models
from scripts.bench.made_mix import SAMPLES, make_mix
from scripts.bench.shared import in_process

IMAGE = 336
START = {
    "hash of the data file": [(llava.data.records, "sha256_of")],
    "conversion of the JSON": [(llava.data.records, "convert")],
    "image files exist": [(llava.data.check, "missing_images")],
    "numbers of images": [(llava.train.plan, "cheap_problems")],
    "rest of the plan": [(llava.train.run, "make_plan")],
    "record of the run": [(llava.train.run.RunRecord, "of"), (llava.train.run, "starting_point")],
    "estimate of memory": [(llava.train.run, "choose_recomputation")],
    "weights": [(llava.train.run, name) for name in ("load_model", "add_vision", "choose_what_trains", "load_data")],
    "order of the samples": [(LLaVATrainer, "_get_train_sampler"), (EpochSampler, "__iter__")],
    "first batch": [(LLaVATrainer, "get_batch_samples")],
}
"""Part of the start -> the functions whose time it is."""
SAMPLE = {
    "reading the record": [(llava.data.records.Records, "__getitem__")],
    "ids and labels": [(llava.data.dataset, "preprocess")],
    "reading and decoding the image": [(llava.data.dataset, "open_image")],
    "padding, resizing, normalising": [(llava.data.dataset, "process_image")],
    "collation": [(llava.data.collate.DataCollatorForSupervisedDataset, "__call__")],
}
"""The same for a sample."""
MEMORY = (
    ("records: private memory", "RssAnon", "under 1 GB"),
    ("records: mapped file pages, shared by all processes", "RssFile", "with the private memory"),
    ("records: their file on disk", "file", ""),
)
READ = 50_000
"""Records that are read, in the order of a training, before memory is measured."""
PEAK = "peak memory until then, GB"


class Stopwatch:
    """Seconds per part: those of its functions, without those of other parts that they call."""

    def __init__(self, parts: dict[str, list[tuple[Any, str]]]) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(parts, 0.0)
        self._running: list[str] = []
        self._since = time.perf_counter()
        for part, functions in parts.items():
            for owner, name in functions:
                setattr(owner, name, self._timed(part, owner.__dict__[name]))

    def _timed(self, part: str, function: Any) -> Any:
        if isinstance(function, classmethod):
            return classmethod(self._timed(part, function.__func__))

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._running.pop()

        return timed

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


class Pausing(LLaVATrainer):
    """A trainer whose step is a pause, so that the loader is measured and not the model."""

    seconds = 0.0

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        time.sleep(self.seconds)
        return torch.ones(())


class FirstStep(Exception):
    """The first step begins."""


def flags(args: argparse.Namespace, output: Path, **changes: object) -> list[str]:
    """Flags of upstream's finetune_lora.sh on the generated data."""
    values: dict[str, object] = {
        "lora_enable": True,
        "lora_r": 4,
        "model_name_or_path": args.folder / "llm",
        "version": "v1",
        "data_path": args.data,
        "image_folder": args.images,
        "vision_tower": args.folder / "tower",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "image_aspect_ratio": "pad",
        "group_by_modality_length": True,
        "output_dir": output,
        "max_steps": 1,
        "per_device_train_batch_size": args.batch,
        "gradient_checkpointing": "auto",
        "save_strategy": "no",
        "model_max_length": 2048,
        "dataloader_num_workers": 4,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return [text for name, value in (values | changes).items() for text in (f"--{name}", str(value))]


def start(args: argparse.Namespace) -> dict[str, float]:
    """Seconds per part until the first step begins."""
    process = psutil.Process()
    imported = time.time() - process.create_time()
    watch = Stopwatch(START)

    def begins(*args: object, **kwargs: object) -> None:
        raise FirstStep

    LLaVATrainer.training_step = begins
    changes = {"max_steps": args.resumed_at + 1, "save_strategy": "steps"} if args.resumed_at else {}
    try:
        train(argv=flags(args, args.output, **changes))
    except FirstStep:
        total = time.time() - process.create_time()
    parts = {"Python and imports": imported, **watch.seconds}
    return parts | {"the rest": total - sum(parts.values()), PEAK: peak_memory(torch.device("cpu")) / 1e9}


def run_steps(args: argparse.Namespace) -> dict[str, Any]:
    """A training of pauses: the share of time that it waited, and seconds per part of a sample without workers."""
    watch = Stopwatch(SAMPLE)
    Pausing.seconds = args.step_seconds
    saved = {"save_strategy": "steps", "save_steps": 1} if args.saved else {}
    changes = {"dataloader_num_workers": args.workers, "max_steps": args.steps, "logging_steps": args.steps}
    train(argv=flags(args, args.output, **changes, **saved), make_trainer=Pausing)
    history = json.loads((args.output / "trainer_state.json").read_text())["log_history"]
    # The loader is one batch ahead of the step.
    samples = (args.steps + 1) * args.batch
    return {"wait": history[-1]["train_data_wait"], "sample": {k: v / samples for k, v in watch.seconds.items()}}


def resident(args: argparse.Namespace) -> dict[str, float]:
    """Bytes that the records add to a process, private and mapped, and the size of their file."""
    before = {name: status_bytes(name) for name in ("RssAnon", "RssFile")}
    records = llava.data.records.open_records(args.data)
    llava.data.check.cheap_problems(records, args.images)
    dataset = llava.data.dataset.LazySupervisedDataset(records, None, None, None, None, "pad", None)
    order = list(EpochSampler(len(dataset), 0, dataset.modality_lengths, args.batch))
    for index in order[:READ]:
        records[index]
    found = {name: status_bytes(name) - value for name, value in before.items()}
    return found | {"file": records.path.stat().st_size}


def resumable(args: argparse.Namespace, output: Path, at: int) -> None:
    """Makes a checkpoint that looks as if a run had stopped after this many steps."""
    shared = ["--saved", "--steps", 1, "--workers", 0, "--step-seconds", 0]
    in_process(__file__, "--part", "steps", "--output", output, *words(args), *shared)
    folder = (output / "checkpoint-1").rename(output / f"checkpoint-{at}")
    state = json.loads((folder / "trainer_state.json").read_text())
    (folder / "trainer_state.json").write_text(json.dumps(state | {"global_step": at, "log_history": []}))
    for file in output.iterdir():
        if file.is_file() and file.name != "run_settings.json":
            file.unlink()


def words(args: argparse.Namespace) -> list[object]:
    """The flags that every measuring process needs."""
    return ["--folder", args.folder, "--samples", args.samples, "--batch", args.batch]


def measure(args: argparse.Namespace) -> None:
    work = args.folder / "runs"
    shutil.rmtree(work, ignore_errors=True)
    os.environ["LLAVA_CACHE"] = str(work / "cache")

    def part(name: str, output: str, *further: object) -> Any:
        return in_process(__file__, "--part", name, "--output", work / output, *words(args), *further)

    half = max(1, args.samples // args.batch // 2)
    starts = {"first": part("start", "first"), "second": part("start", "second")}
    resumable(args, work / "resumed", half)
    starts[f"at step {half:,}"] = part("start", "resumed", "--resumed-at", half)
    peaks = [f"{found.pop(PEAK):.2f}" for found in starts.values()]
    rows = [("seconds until the first step", *starts)]
    rows += [(name, *(f"{found[name]:.2f}" for found in starts.values())) for name in starts["first"]]
    beyond = [sum(found.values()) - found["weights"] for found in starts.values()]
    rows += [("all but weights (goal: under 60)", *(f"{seconds:.1f}" for seconds in beyond)), (PEAK, *peaks)]
    print(text_table(rows), end="\n\n", flush=True)

    held = part("resident", "unused")
    rows = [("figure", "value", "goal")]
    rows += [(name, f"{held[key] / 1e6:.0f} MB", goal) for name, key, goal in MEMORY]
    pauses = ["--step-seconds", args.step_seconds, "--steps", args.steps]
    found = {workers: part("steps", f"workers-{workers}", "--workers", workers, *pauses) for workers in (4, 0)}
    sample = found[0]["sample"]
    rows += [(f"sample: {name}", f"{1000 * seconds:.2f} ms", "") for name, seconds in sample.items()]
    rows.append(("samples/s that one worker can make", f"{1 / sum(sample.values()):.1f}", ""))
    for workers, steps in found.items():
        goal = "under 2%" if workers else ""
        rows.append((f"waiting, {workers} workers, steps of {args.step_seconds:g} s", f"{steps['wait']:.1%}", goal))
    print(text_table(rows, align="<><"))


PARTS = {"start": start, "steps": run_steps, "resident": resident}


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the data, the models and the runs")
    parser.add_argument("--samples", type=positive, default=SAMPLES)
    parser.add_argument("--batch", type=positive, default=16, help="samples of a step")
    parser.add_argument("--steps", type=positive, default=30, help="steps that are timed")
    parser.add_argument("--step-seconds", type=float, default=1.0, help="how long a step takes without its data")
    for name, kind in (("part", str), ("output", Path), ("workers", int), ("resumed-at", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--saved", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.folder = args.folder.resolve()
    args.folder.mkdir(parents=True, exist_ok=True)
    args.data, args.images = make_mix(args.folder, args.samples)
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return
    # The last file that it writes.
    if not (args.folder / "tower/preprocessor_config.json").exists():
        make_models(args.folder, MODELS["tiny"], IMAGE)
    print(f"{args.samples:,} samples ({args.data.stat().st_size / 1e6:.0f} MB), batch {args.batch}", flush=True)
    measure(args)


if __name__ == "__main__":
    run_program(main, interrupted="")
