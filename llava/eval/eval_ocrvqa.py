"""Scores OCR-VQA answers.

`python -m llava.eval.eval_ocrvqa --annotation-file dataset.json --question-file Q --result-file R`
"""

from llava.eval.benchmarks.ocrvqa import OCRVQA
from llava.flags import run_program

main = OCRVQA.score_main

if __name__ == "__main__":
    run_program(main)
