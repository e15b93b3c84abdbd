"""Scores TextVQA answers; --help lists the flags. The rules are in llava/eval/benchmarks/textvqa.py."""

from llava.eval.benchmarks import run_scorer


def main() -> None:
    run_scorer("textvqa")


if __name__ == "__main__":
    main()
