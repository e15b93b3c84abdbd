"""Scores DocVQA answers; --help lists the flags. The rules are in llava/eval/benchmarks/docvqa.py."""

from llava.eval.benchmarks import run_scorer


def main() -> None:
    run_scorer("docvqa")


if __name__ == "__main__":
    main()
