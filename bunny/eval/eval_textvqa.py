"""Scores answers to TextVQA (upstream: bunny/eval/eval_textvqa.py)."""

from bunny.eval.entry import run

if __name__ == "__main__":
    run("llava.eval.eval_textvqa")
