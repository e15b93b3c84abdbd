"""Upstream's name for `python -m llava.eval.benchmarks.convert_mmbench`."""

from llava.eval.benchmarks.convert_mmbench import main
from llava.eval.scoring.pairing import run_scorer

if __name__ == "__main__":
    run_scorer(main)
