"""Scores RefCOCOg answers.

`python -m llava.eval.eval_refcocog --annotation-file A --model-path CHECKPOINT --result-file R`
"""

from llava.eval.benchmarks.refcocog import REFCOCOG
from llava.flags import run_program

main = REFCOCOG.score_main

if __name__ == "__main__":
    run_program(main)
