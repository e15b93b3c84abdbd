"""Scores BIG-bench-hard answers: `python -m llava.eval.eval_bbh --annotation-file A --result-file R`"""

from llava.eval.benchmarks.bbh import BBH
from llava.flags import run_program

main = BBH.score_main

if __name__ == "__main__":
    run_program(main)
