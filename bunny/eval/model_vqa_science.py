"""Answers ScienceQA with a Bunny (upstream: bunny/eval/model_vqa_science.py)."""

from bunny.eval.entry import run

if __name__ == "__main__":
    run("llava.eval.model_vqa_science")
