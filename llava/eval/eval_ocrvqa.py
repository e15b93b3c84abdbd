"""Scores OCR-VQA answers; --help lists the flags. The rules are in llava/eval/benchmarks/ocrvqa.py."""

from llava.eval.benchmarks import run_scorer


def main() -> None:
    run_scorer("ocrvqa")


if __name__ == "__main__":
    main()
