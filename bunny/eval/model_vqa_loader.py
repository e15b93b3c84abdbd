"""Answers a question file with a Bunny: TextVQA, GQA and others (upstream: bunny/eval/model_vqa_loader.py)."""

from bunny.eval.entry import run

if __name__ == "__main__":
    run("llava.eval.model_vqa_loader")
