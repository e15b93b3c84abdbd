"""Scores GQA answers.

`python -m llava.eval.eval_gqa --annotation-file testdev_balanced_questions.json --result-file R`
"""

from llava.eval.benchmarks.gqa import GQA
from llava.flags import run_program

main = GQA.score_main

if __name__ == "__main__":
    run_program(main)
