"""Scores easy-VQA answers: `python -m llava.eval.eval_easy_vqa --annotation-file A --result-file R`"""

from llava.eval.benchmarks.easy_vqa import EASY_VQA
from llava.flags import run_program

main = EASY_VQA.score_main

if __name__ == "__main__":
    run_program(main)
