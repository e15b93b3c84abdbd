"""Turns MMBench answers into the sheet that its server takes (upstream: scripts/convert_mmbench_for_submission.py)."""

from llava.eval.benchmarks.mmbench import convert_main as main
from llava.flags import run_program

if __name__ == "__main__":
    run_program(main)
