"""Scores MMBench answers; --help lists the flags. The rules are in llava/eval/benchmarks/mmbench.py."""

from llava.eval.benchmarks import run_scorer


def main() -> None:
    run_scorer("mmbench")


if __name__ == "__main__":
    main()
