"""Scores answers to GQA (upstream: bunny/eval/eval_gqa.py)."""

from bunny.eval.entry import run

if __name__ == "__main__":
    run("llava.eval.eval_gqa")
