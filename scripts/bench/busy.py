"""Seconds per step of the quickstart's stage 2, alone and with a busy loop in another process, by how threads wait.

`python scripts/bench/busy.py [--steps 6] [--rounds 2]`

Run it on a quiet machine, after stage 1 of the quickstart. The ratio is that of the step with the busy loop to the step
alone, as a median over rounds.
"""

import statistics
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from llava.flags import Parser, run_program
from llava.tables import text_table
from scripts.bench.shared import median_ratio
from scripts.bench.stage2 import ROOT, Stage2, add_flags, busy_loop

WAYS = {
    "spin 0.1 ms (GOMP_SPINCOUNT=10000, the default here)": {},
    "asleep (OMP_WAIT_POLICY=PASSIVE)": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 3 ms (GOMP_SPINCOUNT=300000, OpenMP's default)": {"GOMP_SPINCOUNT": "300000"},
    "one thread (OMP_NUM_THREADS=1)": {"OMP_NUM_THREADS": "1"},
}


def main() -> None:
    parser = Parser(description=__doc__)
    add_flags(parser, rounds=2)
    args = parser.parse_args()
    found = {(name, busy): [] for name in WAYS for busy in (False, True)}
    with tempfile.TemporaryDirectory() as work:
        stage2 = Stage2(args, Path(work))
        for number in range(args.rounds):
            for (name, busy), seconds in found.items():
                with busy_loop() if busy else nullcontext():
                    seconds.append(stage2.run(ROOT, WAYS[name]).clock)
                where = "with a busy loop" if busy else "alone"
                print(f"round {number + 1} of {args.rounds}: {name}, {where}: {seconds[-1]:.2f} s per step", flush=True)
    rows = [("threads wait", "alone, s per step", "with a busy loop", "ratio")]
    for name in WAYS:
        alone, loaded = found[name, False], found[name, True]
        cells = (f"{statistics.median(values):.2f}" for values in (alone, loaded))
        rows.append((name, *cells, f"{median_ratio(loaded, alone):.2f}"))
    print(text_table(rows))


if __name__ == "__main__":
    run_program(main, interrupted="")
