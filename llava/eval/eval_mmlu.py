"""Scores MMLU answers; --help lists the flags. The rules are in llava/eval/benchmarks/mmlu.py."""

from llava.eval.benchmarks import run_scorer


def main() -> None:
    run_scorer("mmlu")


if __name__ == "__main__":
    main()
