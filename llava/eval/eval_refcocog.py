"""Scores RefCOCOg answers; --help lists the flags. The rules are in llava/eval/benchmarks/refcocog.py."""

from llava.eval.benchmarks import run_scorer


def main() -> None:
    run_scorer("refcocog")


if __name__ == "__main__":
    main()
