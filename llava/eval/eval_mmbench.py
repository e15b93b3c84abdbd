"""Scores MMBench answers.

`python -m llava.eval.eval_mmbench --annotation-file mmbench_dev_20230712.tsv --result-file R`
"""

from llava.eval.benchmarks.mmbench import MMBENCH
from llava.flags import run_program

main = MMBENCH.score_main

if __name__ == "__main__":
    run_program(main)
