"""Scores TDIUC answers; --help lists the flags. The rules are in llava/eval/benchmarks/tdiuc.py."""

from llava.eval.benchmarks import run_scorer


def main() -> None:
    run_scorer("tdiuc")


if __name__ == "__main__":
    main()
