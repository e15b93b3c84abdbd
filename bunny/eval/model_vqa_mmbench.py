"""Answers MMBench with a Bunny (upstream: bunny/eval/model_vqa_mmbench.py)."""

from bunny.eval.entry import run

if __name__ == "__main__":
    run("llava.eval.model_vqa_mmbench", max_new_tokens="128")
