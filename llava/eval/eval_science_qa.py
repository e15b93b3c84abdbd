"""Scores ScienceQA answers: `python -m llava.eval.eval_science_qa --base-dir scienceqa --result-file R`"""

from llava.eval.benchmarks.scienceqa import SCIENCEQA
from llava.flags import run_program

main = SCIENCEQA.score_main

if __name__ == "__main__":
    run_program(main)
