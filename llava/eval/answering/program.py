"""What a model_vqa program does: flags, then answers."""

import argparse
from collections.abc import Callable
from pathlib import Path

from llava.eval.answering.answers_file import check_answers
from llava.eval.answering.flags import check_flags
from llava.eval.answering.questions import Question
from llava.flags import Parser, run_program
from llava.outputs import check_cache


def main(parser: Parser, read: Callable[[argparse.Namespace], list[Question]]) -> None:
    """Runs a model_vqa program; `read` returns its questions from its flags."""

    def program() -> None:
        args = parser.parse_args()
        check_flags(args)
        check_answers(Path(args.answers_file), [args.question_file])
        check_cache(args.vision_feature_cache, [args.model_path, args.model_base, args.vision_tower])
        # Imports torch, so it waits until the flags are right.
        from llava.eval.answering.runner import run

        run(args, read)

    run_program(program)
