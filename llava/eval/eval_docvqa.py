"""Scores DocVQA answers: `python -m llava.eval.eval_docvqa --annotation-file val_v1.0_withQT.json --result-file R`"""

from llava.eval.benchmarks.docvqa import DOCVQA
from llava.flags import run_program

main = DOCVQA.score_main

if __name__ == "__main__":
    run_program(main)
