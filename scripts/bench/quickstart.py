"""Seconds per step of the quickstart's stage 2 in this checkout and in another one, rounds in turn.

`python scripts/bench/quickstart.py --other ../before [--steps 8] [--rounds 3]`

The other checkout is made by `git worktree add ../before COMMIT`. The command of stage 2 is read from each checkout's
own scripts/quickstart.sh. Model, data and projector are those of this checkout, after stage 1 of its quickstart. Both
get the same samples. Each run is a new process, and its first step is not counted. The table has medians, with ratios
within each round; below it is the largest relative difference of a step's loss.
"""

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from llava.flags import Parser, run_program
from llava.tables import text_table
from scripts.bench.shared import median_ratio
from scripts.bench.stage2 import ROOT, Stage2, add_flags


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--other", type=Path, required=True, help="folder of the other checkout")
    add_flags(parser, rounds=3)
    args = parser.parse_args()
    checkouts = {"before": args.other.resolve(), "now": ROOT}
    found = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as work:
        stage2 = Stage2(args, Path(work))
        for number in range(args.rounds):
            for name, checkout in checkouts.items():
                found[name].append(stage2.run(checkout))
                steps = found[name][-1]
                print(f"round {number + 1} of {args.rounds}: {name}: {steps.clock:.2f} s per step", flush=True)
    rows = [("stage 2", "s per step", "ratio", "processor s", "ratio")]
    for name in found:
        cells = [name]
        for kind in ("clock", "processor"):
            values, others = ([getattr(steps, kind) for steps in found[way]] for way in (name, "before"))
            cells += [f"{statistics.median(values):.2f}", f"{median_ratio(values, others):.2f}"]
        rows.append(tuple(cells))
    print(text_table(rows))
    pairs = zip(found["before"][0].losses, found["now"][0].losses, strict=True)
    worst = max(abs(now - before) / max(abs(before), 1e-9) for before, now in pairs)
    print(f"losses differ by at most {100 * worst:.2g}%: {', '.join(f'{x:.4f}' for x in found['now'][0].losses)}")


if __name__ == "__main__":
    run_program(main, interrupted="")
