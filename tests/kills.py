"""Kills programs at random moments, runs them again to the end, and compares the files with an uninterrupted run's.

`python tests/kills.py --kills 20 --seed 0 [names]` runs the long form of tests/test_kills.py, where the programs are;
all of them if no name is given. A kill is one of these, drawn at random:

- SIGKILL at a moment of the uninterrupted run's duration, to the program and all that it started;
- SIGKILL when the program is about to change a file for the n-th time: open for writing, rename, remove, make a folder;
- SIGINT at such a moment or change, after which the program has to end with exit status 130.

In a third of the cases the second run is killed too.
"""

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
COUNTED = """
import atexit, os, runpy, signal, sys
wanted, number, report = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
here, changes = os.getcwd(), 0
NAMES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink", "os.chmod"}

def watch(event, arguments):
    global changes
    if event not in NAMES or not isinstance(arguments[0], str):
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    if os.path.abspath(arguments[0]).startswith(here):
        changes += 1
        if changes == wanted:
            os.kill(os.getpid(), number)

sys.addaudithook(watch)
atexit.register(lambda: open(report, "w").write(str(changes)))
sys.argv = sys.argv[4:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module and sends itself a signal at its n-th change of a file in the working folder."""
ENOUGH = 10
"""Of this many kills at random moments, at least one comes before the end of the program."""
_METER = "run.json"
LEFT = re.compile(r"\.partial$|\.old$|\.lock$|\.journal$|^tmp")
CHANGING = re.compile(r'^\s*"(train_loss|train_runtime|train_data_wait|\w+_per_second)": .*|^Time: .*', re.M)
"""Lines of results that hold times, and the mean loss of the steps since the last start, as transformers counts it."""


@dataclass(frozen=True)
class Case:
    """A program: a module with its flags, or a shell script, run in a folder that `fill` has filled.

    Args:
        times: the names of files with durations, or with the times of other files; run.json is always one.
        done: what the program says, as an error, if its output is complete.
        counted: whether changes of files can be counted: the module makes them, not a process that it starts.
    """

    words: Sequence[object]
    fill: Callable[[Path], object] = lambda folder: None
    environment: dict[str, str] = field(default_factory=dict)
    times: str = "^$"
    done: str = ""
    counted: bool = True


@dataclass
class Count:
    kills: int = 0
    interrupts: int = 0
    late: int = 0
    """The program was over before."""


class Runner:
    """Runs a case in one folder, as results hold paths; `start` starts a program with the fork server."""

    def __init__(self, case: Case, folder: Path, start: Callable, python: str) -> None:
        self.case, self.folder, self._start = case, folder / "run", start
        self._report, self._log = folder / "changes", folder / "log"
        own = {"PYTHONPATH": str(REPOSITORY), "LLAVA_CACHE": str(self.folder / "cache"), "PYTHON": python}
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **own, **case.environment}

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.case.fill(self.folder)

    def run(self, seconds: float | None = None, change: int = 0, number: int = signal.SIGKILL) -> int:
        """Runs the program to its end, or until it is killed; returns its exit status."""
        words = [str(word) for word in self.case.words]
        with open(self._log, "wb") as log, open(os.devnull) as null:
            if words[0] == "bash":
                process = subprocess.Popen(
                    words,
                    cwd=self.folder,
                    env=self._environment,
                    stdin=null,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            else:
                words = ["-c", COUNTED, str(change), str(int(number)), str(self._report), *words]
                files = (null.fileno(), log.fileno(), log.fileno())
                process = self._start(*words, environment=self._environment, folder=self.folder, files=files)
            if seconds is not None:
                deadline = time.monotonic() + seconds
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.002)
                if process.poll() is None:
                    os.killpg(process.pid, number)
            process.wait()
        if seconds is not None:
            # What it started is killed by the fork server, a moment after.
            time.sleep(0.2)
        return process.returncode

    def finish(self) -> float:
        """Runs the program to its end; returns the seconds."""
        began = time.monotonic()
        status = self.run()
        assert status == 0 or self.over(), f"exit status {status}\n{self.log()}"
        return time.monotonic() - began

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def over(self) -> bool:
        """Whether the program has found its output complete."""
        return bool(self.case.done) and self.case.done in self.log()

    def uninterrupted(self) -> tuple[float, int]:
        """Its seconds and its changes of files."""
        self.clear()
        seconds = self.finish()
        counted = self.case.counted and self.case.words[0] != "bash"
        return seconds, int(self._report.read_text()) if counted else 0

    def contents(self) -> dict[str, str]:
        """SHA-256 of each file without its times, by path."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_dir() or path.is_symlink():
                found[name] = "folder" if path.is_dir() else str(path.readlink())
                continue
            content = path.read_bytes()
            if re.search(self.case.times, name) or path.name == _METER:
                content = b""
            elif path.suffix in (".json", ".md"):
                content = CHANGING.sub("", content.decode()).encode()
            found[name] = hashlib.sha256(content).hexdigest()
        return found


def kill_many(case: Case, folder: Path, start: Callable, python: str, kills: int, seed: object) -> Count:
    """Kills the program `kills` times; asserts that the files are as after an uninterrupted run."""
    runner, luck, count = Runner(case, folder, start, python), random.Random(str(seed)), Count()
    seconds, changes = runner.uninterrupted()
    whole = runner.contents()
    while count.kills < kills:
        runner.clear()
        told = []
        for _ in range(2 if luck.random() < 1 / 3 else 1):
            # The first kill is at a change, which every run makes: on a fast machine, a moment may be after the end.
            sure = changes > 0 and not count.kills
            number = signal.SIGINT if luck.random() < 0.25 and not sure else signal.SIGKILL
            if changes and (luck.random() < 0.5 or sure):
                how = {"change": luck.randint(1, changes)}
            else:
                how = {"seconds": luck.uniform(0, seconds)}
            status = runner.run(**how, number=number)
            told.append(f"{number.name} at {how}: {status}")
            allowed = (130, -number) if number is signal.SIGINT else (-number,)
            assert status in (0, *allowed) or runner.over(), f"{told}\n{runner.log()}"
            count.kills += 1
            count.interrupts += number is signal.SIGINT
            count.late += status not in allowed
        # A machine that was busy at first made the program slow.
        seconds = min(seconds, runner.finish())
        left = runner.contents()
        wrong = sorted(name for name in {**whole, **left} if whole.get(name) != left.get(name))
        assert not wrong, f"{told}: {[(name, 'left' if name not in whole else 'differs') for name in wrong]}"
        assert not [name for name in left if LEFT.search(Path(name).name) and name not in whole]
    # Two kills at moments may both come after the end.
    assert count.late < count.kills or (not changes and kills < ENOUGH), f"no kill hit the program: {count}"
    return count


def main() -> None:
    import pytest

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each program")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*", help="programs; default: all")
    args = parser.parse_args()
    os.environ |= {"KILLS": str(args.kills), "KILL_SEED": str(args.seed)}
    chosen = ["-k", " or ".join(f"[{name}]" for name in args.names)] if args.names else []
    sys.exit(pytest.main([str(REPOSITORY / "tests/test_kills.py"), "-s", "-p", "no:cacheprovider", *chosen]))


if __name__ == "__main__":
    main()
