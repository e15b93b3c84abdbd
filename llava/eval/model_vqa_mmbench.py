"""Answers MMBench: upstream's flags and answer lines, batched and resumable."""

import argparse

from llava.eval.answering.arguments import question_parser
from llava.eval.answering.runner import main
from llava.eval.benchmarks.mmbench import SUFFIXES, read_mmbench_questions


def make_parser() -> argparse.ArgumentParser:
    parser = question_parser("Answer MMBench", 1024, "tables/question.jsonl")
    parser.add_argument("--all-rounds", action="store_true", help="once for each rotation of the options")
    parser.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    parser.add_argument("--lang", choices=SUFFIXES, default="en", help="of the request for the letter")
    return parser


if __name__ == "__main__":
    main(
        make_parser(),
        lambda args: read_mmbench_questions(args.question_file, args.single_pred_prompt, args.all_rounds, args.lang),
    )
