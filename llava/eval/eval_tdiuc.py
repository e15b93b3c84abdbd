"""Scores TDIUC answers.

`python -m llava.eval.eval_tdiuc --annotation-file mscoco_val2014_annotations.json --result-file R`
"""

from llava.eval.benchmarks.tdiuc import TDIUC
from llava.flags import run_program

main = TDIUC.score_main

if __name__ == "__main__":
    run_program(main)
