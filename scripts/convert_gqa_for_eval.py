"""Upstream's name for `python -m llava.eval.convert_gqa`."""

from llava.eval.answers import run_scorer
from llava.eval.convert_gqa import main

if __name__ == "__main__":
    run_scorer(main)
