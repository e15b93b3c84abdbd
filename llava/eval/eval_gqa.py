"""Scores GQA answers; --help lists the flags. The rules are in llava/eval/benchmarks/gqa.py."""

from llava.eval.benchmarks import run_scorer


def main() -> None:
    run_scorer("gqa")


if __name__ == "__main__":
    main()
