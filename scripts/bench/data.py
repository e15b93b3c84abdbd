"""Start-up, memory of the records, and waiting for data, with as many samples as LLaVA-1.5's mix has.

    python scripts/bench/data.py --folder FOLDER [--step-seconds 1]

Makes a data set in FOLDER once (about 1.2 GB, also when it is run again), and a tiny language model and tower with random
weights and CLIP-336's image size. Every figure is measured in a new process, through the trainer's entry:

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
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

import llava.data.collate
import llava.data.dataset
import llava.data.records
import llava.images
import llava.train.llava_trainer
import llava.train.plan
import llava.train.run
from llava.flags import Parser, positive, run_program
from llava.tables import text_table
from llava.train.llava_trainer import LLaVATrainer
from llava.train.train import train
from scripts.bench.beside_upstream import MODELS, make_models
from scripts.bench.made_mix import SAMPLES, make_mix
from scripts.bench.shared import in_process

IMAGE = 336
TRAINER = llava.train.llava_trainer.LLaVATrainer
START = {
    "hash of the data file": [(llava.data.records, "sha256_of")],
    "conversion of the JSON": [(llava.data.records, "_convert")],
    "image files exist": [(llava.data.check, "missing_images")],
    "numbers of images": [(llava.train.plan, "cheap_problems")],
    "rest of the plan": [(llava.train.run, "make_plan")],
    "record of the run": [(llava.train.run.RunRecord, "of"), (llava.train.run, "starting_point")],
    "estimate of memory": [(llava.train.run, "choose_recomputation")],
    "weights": [(llava.train.run, name) for name in ("load_model", "add_vision", "choose_what_trains", "load_data")],
    "order of the samples": [(TRAINER, "_get_train_sampler"), (llava.train.llava_trainer.EpochSampler, "__iter__")],
    "first batch": [(TRAINER, "get_batch_samples")],
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
    """A trainer whose step is a pause, so that the loader is measured and not this machine's processor."""

    seconds = 0.0

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        time.sleep(self.seconds)
        return torch.ones((), requires_grad=True).detach()
