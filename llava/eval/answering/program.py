"""What a model_vqa program does: flags, then answers."""

import argparse
from collections.abc import Callable

from llava.eval.answering.flags import check_flags
from llava.eval.answering.questions import Question
from llava.flags import Parser, run_program


def main(parser: Parser, read: Callable[[argparse.Namespace], list[Question]]) -> None:
    """Runs a model_vqa program; `read` returns its questions from its flags."""

    def program() -> None:
        args = parser.parse_args()
        check_flags(args)
        # Imports torch, so it waits until the flags are right.
        from llava.eval.answering.runner import run

        run(args, read)

    run_program(program)
