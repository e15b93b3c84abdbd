"""Answers a question file (TextVQA, GQA, easy-VQA, ...): upstream's flags and answer lines, batched and resumable."""

import argparse

from llava.eval.answering.arguments import question_parser
from llava.eval.answering.questions import read_questions
from llava.eval.answering.runner import main as run


def make_parser() -> argparse.ArgumentParser:
    return question_parser("Answer a question file", 128)


def main() -> None:
    run(make_parser(), lambda args: read_questions(args.question_file))


if __name__ == "__main__":
    main()
