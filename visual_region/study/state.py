"""What the folder of a cell, or of the shared stages, says about it: finished steps, settings, failure, lock."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava.checkpoint.card import RUN_FILE, read_run
from llava.checkpoint.record import LayerRecord
from llava.files import LOCK, locked, write_json
from llava.journal import differences
from llava.reading import read_json
from visual_region.study.cell import CELL_FILE, Cell
from visual_region.study.results import DONE_FILE
from visual_region.study.steps import CURVE, SCORE, TRAIN, Job, Step
from visual_region.study.yaml_file import PlanError

SETTINGS_FILE, FAILED_FILE = "settings.json", "failed.json"


@dataclass(frozen=True)
class State:
    """The state of a job.

    Attributes:
        seconds: finished step -> what it took.
        left: the steps that are still to be run, in order.
        running: whether a process holds its lock.
        failed: the step at which it failed when it was run last.
    """

    job: Job
    seconds: Mapping[str, float]
    left: tuple[Step, ...]
    running: bool
    failed: str | None

    @property
    def word(self) -> str:
        """done, running, failed or left."""
        return "running" if self.running else "done" if not self.left else "failed" if self.failed else "left"


def state_of(job: Job) -> State:
    seconds = seconds_of(job.folder)
    failed = read_json(job.folder / FAILED_FILE)["step"] if (job.folder / FAILED_FILE).is_file() else None
    return State(job, seconds, steps_left(job), is_locked(job.folder), failed)


def seconds_of(folder: Path) -> dict[str, float]:
    """Finished step -> its seconds."""
    return read_json(folder / DONE_FILE).get("stages", {}) if (folder / DONE_FILE).is_file() else {}


def steps_left(job: Job) -> tuple[Step, ...]:
    """What is to be run: also the training again, if a new step reads weights that were deleted."""
    seconds = seconds_of(job.folder)
    left = [s for s in job.steps if s.name not in seconds or not all(file.is_file() for file in s.writes)]
    if any(step.of_weights for step in left) and not job.checkpoint.is_dir():
        # A curve reads the scores of the same weights; those of a second training can differ in their last bits.
        again = {TRAIN, SCORE} if any(step.name == CURVE for step in left) else {TRAIN}
        left += [step for step in job.steps if step.name in again and step not in left]
    return tuple(step for step in job.steps if step in left)


def has_finished(folder: Path, step: str) -> bool:
    return step in seconds_of(folder)


def record_finished(job: Job, step: Step, seconds: float, every: Iterable[str]) -> None:
    """Records a finished step; `every`: the names of all steps of the job, when no part of them was asked for."""
    parts = _parts(job.folder)
    found = seconds_of(job.folder) | {step.name: round(seconds + parts.pop(step.name, 0.0), 3)}
    write_json(job.folder / DONE_FILE, {"finished": set(every) <= found.keys(), "stages": found, "parts": parts})


def changed_settings(job: Job) -> list[str]:
    """How the plan's settings differ from those with which steps of this job were begun."""
    recorded = _settings(job.folder)
    lines = []
    for step in job.steps:
        before = recorded.get(step.name, {})
        # As read from JSON. A key that the step did not have is new, such as another data set.
        now = {name: value for name, value in json.loads(json.dumps(step.settings)).items() if name in before}
        lines += [f"{job.folder} ({step.name}): {line}" for line in differences(before, now)]
    return lines


def check_settings(jobs: Iterable[Job], out: Path) -> None:
    """Raises `PlanError` if the plan has other settings than those with which cells were begun."""
    if lines := [line for job in jobs for line in changed_settings(job)]:
        shown = [*lines[:20], *([f"and {len(lines) - 20} more"] if len(lines) > 20 else [])]
        listed = "\n".join(f"- {line}" for line in shown)
        raise PlanError(
            f"the plan has other settings than what it began in {out}:\n{listed}\n"
            f"Give the earlier settings, or another folder (--out {out}-2), or delete those folders"
        )


def begin(job: Job, left: Sequence[Step]) -> None:
    """Records what the first of these steps is begun with, and that none of them is finished, if they run again."""
    write_json(job.folder / SETTINGS_FILE, _settings(job.folder) | {left[0].name: dict(left[0].settings)})
    if (job.folder / DONE_FILE).is_file():
        seconds, parts = seconds_of(job.folder), _parts(job.folder)
        for step in left:
            taken = seconds.pop(step.name, 0.0)
            # A step that the plan has made longer, such as by a column, keeps its files and adds to its seconds.
            present = [file.is_file() for file in step.writes]
            if taken and any(present) and not all(present):
                parts[step.name] = taken
        write_json(job.folder / DONE_FILE, {"finished": False, "stages": seconds, "parts": parts})
    (job.folder / FAILED_FILE).unlink(missing_ok=True)


def describe(job: Job) -> None:
    """Writes cell.json and run.json, if they are not there or older than the training or the plan."""
    if job.planned is None:
        return
    cell = job.planned.cell
    # A cell that is trained again has what its last finished training recorded.
    run = next((run for run in map(read_run, (job.checkpoint, job.folder)) if run.get("finished")), None)
    if run:
        record = LayerRecord(run["selection"], 0)
        cell = replace(cell, layers=tuple(record.layers or ()), depth=record.original_depth)
        if read_run(job.folder) != run:
            write_json(job.folder / RUN_FILE, run)
    if not (job.folder / CELL_FILE).is_file() or Cell.read(job.folder) != cell:
        cell.write(job.folder)


def record_failure(job: Job, step: Step, status: int, log: Path) -> None:
    write_json(job.folder / FAILED_FILE, {"step": step.name, "status": status, "log": str(log)})


def is_locked(folder: Path) -> bool:
    """Whether a process works on a folder."""
    if not (folder / LOCK).is_file():
        return False
    with locked(folder) as file:
        return file is None


def _parts(folder: Path) -> dict[str, float]:
    """Step that is not finished -> seconds of what is finished of it."""
    return read_json(folder / DONE_FILE).get("parts", {}) if (folder / DONE_FILE).is_file() else {}


def _settings(folder: Path) -> dict[str, Any]:
    return read_json(folder / SETTINGS_FILE) if (folder / SETTINGS_FILE).is_file() else {}
