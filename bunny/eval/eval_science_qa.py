"""Scores answers to ScienceQA (upstream: bunny/eval/eval_science_qa.py)."""

from bunny.eval.entry import run

if __name__ == "__main__":
    run("llava.eval.eval_science_qa")
