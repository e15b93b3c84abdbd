"""Runs trainings of several processes each: `python ranks.py JOBS.json`, as torchrun would start them on one machine.
A job of one rank is a plain process, without torchrun.

Imports once, trains once, and forks the ranks of every job, which is several times faster than starting python for
each: a rank then imports nothing and builds none of the tables that transformers builds at the first use. JOBS.json:
a list of {"name", "ranks", "argv", "seconds", "copy", "free"}, where copy is a pair of folders or null: the first is
copied to the second before the start; free is the memory that each rank finds free, or null. The first job has one
rank. A rank's output goes to NAME.RANK.log next to JOBS.json, exit statuses to statuses.json.
"""

import contextlib
import gc
import io
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import deepspeed.comm.mori
import deepspeed.module_inject.auto_ep_layer
import deepspeed.ops.op_builder.all_ops
import deepspeed.runtime.superoffload.superoffload_stage3
import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
import peft  # noqa: F401
import setuptools  # noqa: F401
import tqdm
import transformers.trainer  # noqa: F401
from accelerate.state import AcceleratorState, GradientState

import llava.train.memory
import llava.train.train
from llava.data.feature_cache import FeatureCache


def warm_up(argv: list[str]) -> None:
    """Trains once in this process: the ranks inherit what the first training of a process imports and builds."""
    # Bars that watch themselves have a thread of their own, and a fork takes no other thread along.
    tqdm.tqdm.monitor_interval = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        llava.train.train.train(argv=[*argv, "--output_dir", folder, "--max_steps", "1"])
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    assert threading.active_count() == 1, threading.enumerate()
    # Objects that are frozen are not looked through again: every start of a training collects garbage.
    gc.collect()
    gc.freeze()


def rank_of(job: dict, rank: int, port: int, log: Path) -> int:
    """Forks one rank; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with open(log, "w", buffering=1) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if job["ranks"] > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(job["ranks"])}
            os.environ |= {"LOCAL_WORLD_SIZE": str(job["ranks"]), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            meet_before_features(job, rank, log.parent)
        if job["free"]:
            llava.train.memory.free_memory = lambda device: job["free"]
        llava.train.train.train(argv=job["argv"])
        code = 0
    except SystemExit as stop:
        print(stop.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def meet_before_features(job: dict, rank: int, folder: Path) -> None:
    """No rank makes the features before all have come to them.

    A rank that another one holds in a collective until the features are made never comes.
    """
    ensure = FeatureCache.ensure

    def after_all(*args: object, **kwargs: object) -> int:
        (folder / f"{job['name']}.{rank}.came").touch()
        deadline = time.monotonic() + job["seconds"] / 10
        while len(list(folder.glob(f"{job['name']}.*.came"))) < job["ranks"]:
            assert time.monotonic() < deadline, "another rank waits for the features elsewhere than at their lock"
            time.sleep(0.02)
        return ensure(*args, **kwargs)

    FeatureCache.ensure = after_all


def run(job: dict, folder: Path) -> list[int | str]:
    """Exit statuses of a job's ranks; "hung" for those that were killed at the end of their time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    left = {rank_of(job, rank, port, folder / f"{job['name']}.{rank}.log"): rank for rank in range(job["ranks"])}
    statuses: list[int | str] = ["hung"] * job["ranks"]
    deadline = time.monotonic() + job["seconds"]
    while left and time.monotonic() < deadline:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            statuses[left.pop(pid)] = os.waitstatus_to_exitcode(status)
            if statuses.count(0) + len(left) < job["ranks"]:
                # One rank failed; the others would wait for it.
                deadline = min(deadline, time.monotonic() + 5)
        else:
            time.sleep(0.02)
    for pid in left:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    return statuses


if __name__ == "__main__":
    jobs_file = Path(sys.argv[1])
    results = {}
    jobs = json.loads(jobs_file.read_text())
    warm_up(jobs[0]["argv"])
    for job in jobs:
        if job["copy"]:
            shutil.copytree(*job["copy"])
        begin = time.monotonic()
        results[job["name"]] = run(job, jobs_file.parent)
        print(job["name"], results[job["name"]], f"{time.monotonic() - begin:.1f} s", file=sys.stderr)
        if set(results[job["name"]]) != {0}:
            break
    (jobs_file.parent / "statuses.json").write_text(json.dumps(results))
