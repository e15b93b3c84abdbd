"""Scores easy-VQA answers; --help lists the flags. The rules are in llava/eval/benchmarks/easy_vqa.py."""

from llava.eval.benchmarks import run_scorer


def main() -> None:
    run_scorer("easy_vqa")


if __name__ == "__main__":
    main()
