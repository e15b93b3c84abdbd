"""Seconds of a few training steps of rows of a study, in turn on one machine.

`python scripts/bench/study_rows.py plans/embedded.yaml --rows all sparse-uniform "1 layer" [--steps 30] [--rounds 3]`

The cells of a study are trained one after another, perhaps on several machines, and their hours contain what changed in
between. Here the rows train in turn, with the plan's command, one seed and the same samples. The shared stages of
the plan must be finished, and for rows that need them, the scores. The first row is the reference. The table has the
median seconds over the rounds, and the median, lowest and highest ratio within a round. The seconds are those of
run.json: from the first step to the last one, without loading and saving. Nothing else should run.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from llava.checkpoint.card import read_run
from llava.flags import Parser, positive, run_program
from llava.tables import text_table
from visual_region.study.cells import WHOLE, cells_of
from visual_region.study.plan import Plan
from visual_region.study.plan_file import read_plan
from visual_region.study.steps import TRAIN, Command, job_of


def commands(plan: Plan, rows: list[str]) -> dict[str, Command]:
    """Row -> the command that trains its first cell with all the data.

    Raises:
        ValueError: the plan has no such cell.
    """
    found: dict[str, Command] = {}
    for planned in cells_of(plan):
        if planned.cell.share == WHOLE and planned.cell.selection is not None and planned.cell.row not in found:
            (train,) = (step for step in job_of(plan, planned).steps if step.name == TRAIN)
            (found[planned.cell.row],) = train.commands
    if unknown := [row for row in rows if row not in found]:
        known = ", ".join(found) or "none"
        raise ValueError(f"{plan.file} trains no row {', '.join(unknown)} with all the data; there are: {known}")
    return {row: found[row] for row in rows}


def seconds_of(command: Command, output: Path, steps: int) -> float:
    """Runs the training for a few steps and deletes what it trained; returns the seconds that its run.json records."""
    words = [*command.words, "--seed", "0", "--max_steps", str(steps), "--save_strategy", "no"]
    environment = os.environ | command.environment | {"OUTPUT": str(output)}
    log = output.with_suffix(".log")
    with open(log, "w") as file:
        done = subprocess.run(words, env=environment, stdout=file, stderr=subprocess.STDOUT)
    run = read_run(output)
    if done.returncode or not run.get("finished"):
        raise ValueError(f"a training ended with status {done.returncode}: {log.read_text()[-2000:]}")
    shutil.rmtree(output)
    return run["seconds"]


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("plan", metavar="PLAN.yaml")
    parser.add_argument("--rows", nargs="+", required=True, help="names of rows; the first one is the reference")
    parser.add_argument("--out", help="folder of the study; default: the plan's")
    parser.add_argument("--steps", type=positive, default=30)
    parser.add_argument("--rounds", type=positive, default=3)
    args = parser.parse_args()
    ways = commands(read_plan(args.plan, (), args.out), args.rows)
    found: dict[str, list[float]] = {row: [] for row in ways}
    with tempfile.TemporaryDirectory() as work:
        for number in range(args.rounds):
            for i, (row, command) in enumerate(ways.items()):
                found[row].append(seconds_of(command, Path(work) / f"{number}-{i}", args.steps))
                print(f"round {number + 1} of {args.rounds}: {row}: {found[row][-1]:.1f} s", flush=True)
    table = [("row", f"s, {args.steps} steps", "ratio", "lowest", "highest")]
    for row, seconds in found.items():
        ratios = [a / b for a, b in zip(seconds, found[args.rows[0]], strict=True)]
        numbers = (statistics.median(ratios), min(ratios), max(ratios))
        table.append((row, f"{statistics.median(seconds):.1f}", *(f"{ratio:.2f}" for ratio in numbers)))
    print(text_table(table))


if __name__ == "__main__":
    run_program(main, interrupted="")
