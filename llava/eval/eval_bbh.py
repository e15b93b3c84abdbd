"""Scores BIG-bench-hard answers; --help lists the flags. The rules are in llava/eval/benchmarks/bbh.py."""

from llava.eval.benchmarks import run_scorer


def main() -> None:
    run_scorer("bbh")


if __name__ == "__main__":
    main()
