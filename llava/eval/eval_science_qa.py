"""Scores ScienceQA answers; --help lists the flags. The rules are in llava/eval/benchmarks/scienceqa.py."""

from llava.eval.benchmarks import BY_NAME
from llava.flags import run_program

if __name__ == "__main__":
    run_program(BY_NAME["scienceqa"].score_main)
