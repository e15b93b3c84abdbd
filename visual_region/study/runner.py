"""Runs the cells of a study one after another; other processes may do the same with the same plan."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from llava.files import locked
from llava.flags import run_command
from llava.names import count
from visual_region.study.estimate import Estimate, duration
from visual_region.study.plan import Plan
from visual_region.study.state import (
    begin,
    describe,
    has_finished,
    record_failure,
    record_finished,
    state_of,
    steps_left,
)
from visual_region.study.steps import SCORE, TRAIN, Command, Job, Step

WAIT = 5.0
"""Seconds between two looks at cells that other processes run."""
_SHOWN = 8
"""Lines of a log that a failure shows."""


class FailedError(ValueError):
    """Cells of a study, or a shared stage, that failed; the message says why."""


class StepError(RuntimeError):
    """A step that failed; the message says why, and where its log is."""


@dataclass
class Runner:
    """Runs jobs of a plan.

    Attributes:
        jobs: every cell of the plan, by name, for the estimate.
        wanted: the cells to run, with the steps that were asked for.
        failed: name of a cell -> why it failed in this process.
    """

    plan: Plan
    jobs: Mapping[str, Job]
    wanted: Sequence[Job]
    failed: dict[str, str] = field(default_factory=dict)

    def run_stages(self, job: Job) -> None:
        """Runs the shared stages that are not finished; waits while another process runs them."""
        said = False
        while steps_left(job):
            with locked(job.folder) as lock:
                if lock:
                    try:
                        self._run_steps(job, lock)
                    except StepError as error:
                        raise FailedError(f"{error}\nno cell can be run before this stage") from error
                elif not said:
                    print("another process runs the shared stages; waiting for it", flush=True)
                    said = True
            if not lock:
                time.sleep(WAIT)

    def run(self) -> None:
        """Runs the cells, and raises `FailedError` at the end if any of them failed.

        What other processes run is passed over. When nothing else is left, this one waits only for cells whose scores
        another cell needs.
        """
        left, looked = list(self.wanted), False
        while left:
            before, left = left, [job for job in left if not self._over(job)]
            if len(left) < len(before):
                looked = False
                continue
            names, waits = ", ".join(job.name for job in left), any(map(self._missing_scores, left))
            if looked and not waits:
                print(f"other processes run what is left ({names}); there is nothing for this one", flush=True)
                break
            if not looked and waits:
                print(f"other processes run what {names} need; waiting for it", flush=True)
            looked = True
            time.sleep(WAIT if waits else 1)
        if self.failed:
            lines = "\n".join(f"- {name}: {why.splitlines()[0].rstrip(':')}" for name, why in self.failed.items())
            raise FailedError(f"{count(len(self.failed), 'cell')} of {len(self.wanted)} failed:\n{lines}")

    def _over(self, job: Job) -> bool:
        """Runs a cell, if that is possible now; whether nothing of it is left for this process."""
        needed = job.planned.needs
        if self._missing_scores(job):
            if needed in self.failed:
                self.failed[job.name] = f"not run, because it needs the scores of {needed}"
            return needed in self.failed
        with locked(job.folder) as lock:
            if lock:
                try:
                    self._run_steps(job, lock)
                except StepError as error:
                    self.failed[job.name] = str(error)
                    print(f"FAILED {job.name}: {error}", flush=True)
        return lock is not None

    def _missing_scores(self, job: Job) -> bool:
        needed = job.planned.needs
        return bool(needed and steps_left(job) and not has_finished(self.jobs[needed].folder, SCORE))

    def _run_steps(self, job: Job, lock: FileIO) -> None:
        """What is left of a job, whose folder is locked; raises `StepError`."""
        steps, place = steps_left(job), self._place(job)
        for index, step in enumerate(steps):
            deleted = step.name == TRAIN and has_finished(job.folder, TRAIN) and not job.checkpoint.is_dir()
            again = " again, because its checkpoint was deleted" if deleted else ""
            print(f"{place}: {step.name}{again}", flush=True)
            describe(job)
            begin(job, steps[index:])
            began = time.monotonic()
            self._run_step(job, step, lock)
            seconds = time.monotonic() - began
            record_finished(job, step, seconds, [s.name for s in (self.jobs[job.name] if job.planned else job).steps])
            print(f"{place}: {step.name} took {duration(seconds)}", flush=True)
        if job.planned and not steps_left(self.jobs[job.name]):
            describe(job)
            self._remove_weights(job)
        if job.planned and steps:
            states = [state_of(other) for other in self.jobs.values()]
            estimate = Estimate(self.plan, states)
            left = estimate.text(estimate.left(states))
            done = count(sum(not state.left for state in states), "cell")
            print(f"{done} of {len(states)} done{f'; left: {left}' if left else ''}", flush=True)

    def _run_step(self, job: Job, step: Step, lock: FileIO) -> None:
        log, status, missing = job.folder / f"{step.name}.log", 0, []
        for command in step.commands:
            if not status:
                status = _logged(command, log, lock)
        if not status:
            describe(job)
            missing = [str(path) for path in step.writes if not path.is_file()]
        if status or missing:
            record_failure(job, step, status, log)
            why = f"ended with {status}" if status else f"did not write {', '.join(missing)}"
            raise StepError(f"{step.name} {why}; its log is {log}:\n{last_lines(log)}")

    def _remove_weights(self, job: Job) -> None:
        if self.plan.keep_weights:
            return
        # Renamed first, so that no part of it is taken for a checkpoint. A kill may have left such a folder.
        gone = job.checkpoint.with_name("train.deleted")
        shutil.rmtree(gone, ignore_errors=True)
        if job.checkpoint.is_dir():
            job.checkpoint.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _place(self, job: Job) -> str:
        if job.planned is None:
            return job.name
        number = list(self.jobs).index(job.name) + 1
        return f"[{number}/{len(self.jobs)}] {job.name}"


def _logged(command: Command, log: Path, lock: FileIO) -> int:
    """Runs a command with its output at the end of a log; returns the exit status."""
    with open(log, "a", encoding="utf-8") as file:
        print(f"$ {command.shell()}", file=file, flush=True)
        options = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
        # If this process is killed, its children hold the lock as long as they write into the folder.
        # With DRY_RUN a script only prints its command, and the step would be recorded as finished.
        environment = {**os.environ, **command.environment, "DRY_RUN": ""}
        options |= {"env": environment, "pass_fds": (lock.fileno(),)}
        try:
            return run_command(command.words, **options)
        except SystemExit as stop:
            # Ctrl-C: the children have ended, and said so in the log only.
            raise KeyboardInterrupt from stop
        except OSError as error:
            print(error, file=file)
            return 127


def last_lines(log: Path) -> str:
    """The last lines of a log, indented."""
    text = log.read_bytes()[-20_000:].decode("utf-8", errors="replace")
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return "\n".join(f"    {line}" for line in [line for line in lines if line][-_SHOWN:])
