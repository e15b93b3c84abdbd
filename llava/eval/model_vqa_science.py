"""Answers ScienceQA: upstream's flags and answer lines, batched and resumable."""

import argparse

from llava.eval.answering.arguments import question_parser
from llava.eval.answering.runner import main
from llava.eval.benchmarks.scienceqa import read_science_questions


def make_parser() -> argparse.ArgumentParser:
    parser = question_parser("Answer ScienceQA", 1024, "tables/question.json")
    parser.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    parser.add_argument("--answer-prompter", action="store_true", help="upstream's; it has no effect there either")
    return parser


if __name__ == "__main__":
    main(make_parser(), lambda args: read_science_questions(args.question_file, args.single_pred_prompt))
