"""Scores OCR-VQA answers; --help lists the flags. The rules are in llava/eval/benchmarks/ocrvqa.py."""

from llava.eval.benchmarks import run_scorer

if __name__ == "__main__":
    run_scorer("ocrvqa")
