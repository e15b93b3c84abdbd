"""Turns GQA answers into predictions for the official script (upstream: scripts/convert_gqa_for_eval.py)."""

from llava.eval.benchmarks.gqa import convert_main as main
from llava.flags import run_program

if __name__ == "__main__":
    run_program(main)
