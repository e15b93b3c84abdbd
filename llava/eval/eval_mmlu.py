"""Scores MMLU answers: `python -m llava.eval.eval_mmlu --annotation-file A --result-file R`"""

from llava.eval.benchmarks.mmlu import MMLU
from llava.flags import run_program

main = MMLU.score_main

if __name__ == "__main__":
    run_program(main)
