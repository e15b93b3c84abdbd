"""run.json: what a training was and what it cost, summed over its starts."""

import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from llava.checkpoint.card import RUN_FILE, read_run
from llava.constants import IMAGE_TOKEN_INDEX
from llava.devices import device_name, peak_memory
from llava.files import write_json
from llava.tiling import Tiling
from llava.train.arguments import DataArguments, TrainingArguments
from llava.train.plan import RunPlan
from llava.train.report import size_of

_EVERY = 20.0
"""Seconds between two writings: a killed run loses at most so much of what it cost."""
_NOTHING_COUNTED = {"samples": 0, "tokens": 0, "counted_seconds": 0.0}
"""What a start saw up to its last checkpoint or its end, and the seconds up to there."""
_PACKAGES = ("torch", "transformers", "peft", "accelerate")
_ROOT = Path(__file__).parents[2]


def decoder_positions(inputs: Mapping[str, Any], tiling: Tiling, limit: int) -> torch.Tensor:
    """How many positions of the decoder each row of a batch takes: text and image tokens without padding, `(rows,)`.

    `limit`: the model cuts each row off there, after the tokens of its images are inserted.
    """
    ids, sizes = inputs["input_ids"], inputs.get("image_sizes")
    images = (ids == IMAGE_TOKEN_INDEX).sum(1)
    if sizes is None:
        tokens = images * tiling.per_view
    else:
        # The sizes are those of all rows' images, one row after another.
        ends, last = ids.new_tensor([0, *map(tiling.tokens, sizes)]).cumsum(0), images.cumsum(0)
        tokens = ends[last] - ends[last - images]
    return (inputs["attention_mask"].sum(1) - images + tokens).clamp(max=limit)


class RunMeter(TrainerCallback):
    """Writes run.json in the output folder: at the start, every 20 seconds, and at the end.

    Each start of a run is an entry of `starts`; steps that a killed run made after its last checkpoint are made again
    and count twice in `seconds` and `device_hours`, because they were paid for twice. `samples` and `tokens` are those
    that the steps saw, of all processes; `tokens` are positions of the decoder, image tokens included, padding not.
    `peak_memory_bytes` is of the first process: the most of the starts that have recorded it.
    A file that is there already is of an earlier start of this run.
    """

    def __init__(self, trainer: Any, facts: Mapping[str, Any]) -> None:
        self.trainer, self.facts = trainer, dict(facts)
        self.file = Path(trainer.args.output_dir) / RUN_FILE
        self.starts: list[dict[str, Any]] = []
        self._began = self._written = 0.0
        self._warned = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        earlier = read_run(self.file.parent)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        start = {"began": now, "from_step": state.global_step, "to_step": state.global_step}
        self.starts = [*earlier.get("starts", []), start | {"seconds": 0.0, **_NOTHING_COUNTED}]
        self._began = time.perf_counter()
        self._write(state, finished=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if time.perf_counter() - self._written >= _EVERY:
            self._write(state, finished=False)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._count()
        self._write(state, finished=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._count()
        self._write(state, finished=True)

    def _count(self) -> None:
        """What all processes saw; called where all of them are at the same step."""
        seen = self.trainer.accelerator.reduce(self.trainer.seen.clone(), "sum")
        counts = [*map(int, seen.tolist()), round(time.perf_counter() - self._began, 3)]
        self.starts[-1] |= dict(zip(_NOTHING_COUNTED, counts, strict=True))

    def _write(self, state: Any, finished: bool) -> None:
        self._written = time.perf_counter()
        start, args = self.starts[-1], self.trainer.args
        start |= {"to_step": state.global_step, "seconds": round(self._written - self._began, 3)}
        start["peak_memory_bytes"] = peak_memory(args.device)
        if not args.should_save:
            return
        number = args.world_size * max(args.n_gpu, 1)
        seconds, samples, tokens = (sum(one[name] for one in self.starts) for name in ("seconds", "samples", "tokens"))
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        # Files of earlier versions do not have the seconds at which samples were counted.
        counted = sum(one.get("counted_seconds", one["seconds"]) for one in self.starts if one["samples"])
        cost = {
            "steps": state.global_step,
            "samples": samples,
            "tokens": tokens,
            "seconds": round(seconds, 3),
            "device_hours": seconds * number / 3600,
            "samples_per_second": samples / counted if counted else None,
            "tokens_per_second": tokens / counted if counted else None,
            # Starts that earlier versions recorded do not have it.
            "peak_memory_bytes": max(one.get("peak_memory_bytes", 0) for one in self.starts),
            "loss": {"first": losses[0], "last": losses[-1]} if losses else None,
        }
        devices = {"name": device_name(args.device), "number": number, "threads": torch.get_num_threads()}
        content = self.facts | {"devices": devices} | cost | {"starts": self.starts, "finished": finished}
        try:
            write_json(self.file, content)
        except OSError as error:
            # What a run cost is not worth the run.
            if not self._warned:
                print(f"warning: {self.file} cannot be written ({error}); the training goes on", file=sys.stderr)
            self._warned = True


def facts_of(plan: RunPlan, data: DataArguments, training: TrainingArguments, model: torch.nn.Module) -> dict[str, Any]:
    """What a run is, for its run.json."""
    trained = sum(size_of(p) for p in model.parameters() if p.requires_grad)
    return {
        "kind": plan.kind.name.lower(),
        "selection": dict(plan.selection.record.values) if plan.selection else None,
        "seed": training.seed,
        "data_seed": training.data_seed,
        "data_share": data.data_share,
        "data": {"path": data.data_path, "samples": len(plan.indices)},
        "base": plan.base.name,
        "vision_tower": plan.vision.vision_tower,
        "dtype": str(training.compute_dtype).removeprefix("torch."),
        "batch_size": training.train_batch_size * training.world_size * training.gradient_accumulation_steps,
        "trained_parameters": trained,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of this checkout, with "+" if files differ from it; None outside a checkout."""
    if not (_ROOT / ".git").exists():
        return None
    git = ["git", "-C", str(_ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")
