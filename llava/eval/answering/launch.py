"""Runs a model_vqa program in one process per GPU and joins their answers.

`python -m llava.eval.answering.launch [--gpus N] llava.eval.model_vqa_loader --model-path ... --answers-file ...`

If a process fails, the others finish first. All answers are kept, and the error shows the end of its log.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from llava.eval.answering.answers_file import check_target, read_record
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.shards import merge, part_path
from llava.flags import Parser, positive, run_command, run_program, wait_for
from llava.journal import journal_path

_LOG_LINES = 12
"""Lines of a failed process's log that are shown."""
_SET_PROCESSES = "set GPUS={0} before the script, or give this program --gpus {0}"


def launch(module: str, flags: Sequence[str], processes: int | None = None) -> None:
    """Runs `python -m module flags` in several processes (default: one per visible GPU), each with its chunk.

    Raises:
        EvaluationError: one of several processes failed, or the parts are not the whole.
        SystemExit: a single process failed, with its exit status; it has printed what is wrong.
    """
    own = Parser(add_help=False, allow_abbrev=False)
    for flag in ("--answers-file", "--num-chunks", "--chunk-idx"):
        own.add_argument(flag)
    named, rest = own.parse_known_args(flags)
    if not named.answers_file:
        raise EvaluationError("--answers-file is needed")
    if named.num_chunks or named.chunk_idx:
        raise EvaluationError("--num-chunks and --chunk-idx are given by the launcher; leave them out")
    gpus = [] if processes == 1 else visible_gpus()
    count = processes or max(1, len(gpus))
    command = [sys.executable, "-m", module, *rest]
    _name_unused(Path(named.answers_file), count)
    if count == 1:
        code = run_command([*command, "--answers-file", named.answers_file])
        if code < 0:
            raise EvaluationError(f"{module} was killed by signal {-code}; the same command goes on from there")
        if code:
            sys.exit(code)
        return
    check_target(Path(named.answers_file))
    parts = [part_path(named.answers_file, count, i) for i in range(count)]
    parts[0].parent.mkdir(parents=True, exist_ok=True)
    running = []
    for i, part in enumerate(parts):
        environment = dict(os.environ)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[i % len(gpus)]
        else:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        chunk = ["--answers-file", str(part), "--num-chunks", str(count), "--chunk-idx", str(i)]
        # The first process shows its progress, which is about the progress of all.
        with contextlib.nullcontext() if i == 0 else open(part.with_suffix(".log"), "wb") as log:
            running.append(subprocess.Popen([*command, *chunk], env=environment, stdout=log, stderr=log))
    print(f"{count} processes; logs of all but the first are {parts[0].parent}/{count}_*.log", flush=True)
    failures = [_failure(i, code, parts[i]) for i, code in enumerate(wait_for(*running)) if code]
    if failures:
        problem = f"{len(failures)} of {count} processes failed; what was answered is kept"
        raise EvaluationError("\n".join([f"{problem}, and the same command goes on from there", *failures]))
    print(f"{merge(parts, named.answers_file)} answers of {count} processes are in {named.answers_file}")


def _name_unused(answers: Path, count: int) -> None:
    """Prints where runs in another number of processes left answers, which this run makes again."""
    folder, journal = part_path(answers, count, 0).parent, journal_path(answers)
    others = {path.name.split("_")[0] for path in folder.glob("*_*.jsonl*")} - {str(count)}
    # One process does not need the parts of a file that is finished.
    if others and not (count == 1 and read_record(answers)):
        print(
            f"{folder} holds answers of a run in {', '.join(sorted(others))} processes, which are not used; "
            f"to continue from them, {_SET_PROCESSES.format('N')}",
            flush=True,
        )
    if count > 1 and journal.exists():
        unused = f"{journal} holds answers of a run in one process, which are not used"
        print(f"{unused}; to continue from them, {_SET_PROCESSES.format(1)}", flush=True)


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them; empty without a GPU."""
    # torch is imported only if there may be a GPU.
    if not shutil.which("nvidia-smi") and not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))):
        return []
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] or list(map(str, range(count)))


def _failure(i: int, code: int, part: Path) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"
    log = part.with_suffix(".log")
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if i and log.exists() else []
    return "\n".join([f"process {i} {how}" + (f"; the end of {log}:" if lines else ""), *lines])


def main() -> None:
    parser = Parser(description="Run a model_vqa program in one process per GPU")
    parser.add_argument("--gpus", "--processes", type=positive, dest="processes", help="default: visible GPUs")
    parser.add_argument("module", help="for example llava.eval.model_vqa_loader")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="flags of that program")
    args = parser.parse_args()
    launch(args.module, args.flags, args.processes)


if __name__ == "__main__":
    run_program(main)
