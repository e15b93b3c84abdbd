"""Scores ScienceQA answers; --help lists the flags. The rules are in llava/eval/benchmarks/scienceqa.py."""

from llava.eval.benchmarks import run_scorer


def main() -> None:
    run_scorer("scienceqa")


if __name__ == "__main__":
    main()
