"""Scores TextVQA answers.

`python -m llava.eval.eval_textvqa --annotation-file TextVQA_0.5.1_val.json --result-file R`
"""

from llava.eval.benchmarks.textvqa import TEXTVQA
from llava.flags import run_program

main = TEXTVQA.score_main

if __name__ == "__main__":
    run_program(main)
