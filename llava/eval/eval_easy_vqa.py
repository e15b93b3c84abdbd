"""Scores easy-VQA answers; --help lists the flags. The rules are in llava/eval/benchmarks/easy_vqa.py."""

from llava.eval.benchmarks import BY_NAME
from llava.flags import run_program

if __name__ == "__main__":
    run_program(BY_NAME["easy_vqa"].score_main)
