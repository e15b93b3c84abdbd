"""What a model_vqa program does: flags, then answers."""

import argparse
from collections.abc import Callable
from pathlib import Path

from llava.eval.answering.answers_file import check_answers
from llava.eval.answering.flags import check_flags
from llava.eval.answering.questions import Question, read_questions
from llava.eval.benchmarks.mmbench import read_mmbench_questions
from llava.eval.benchmarks.scienceqa import read_science_questions
from llava.flags import Parser, run_program
from llava.outputs import check_cache

READERS: dict[str, Callable[[argparse.Namespace], list[Question]]] = {
    "model_vqa": lambda args: read_questions(args.question_file),
    "model_vqa_loader": lambda args: read_questions(args.question_file),
    "model_vqa_mmbench": lambda args: read_mmbench_questions(
        args.question_file, args.single_pred_prompt, args.all_rounds, args.lang
    ),
    "model_vqa_science": lambda args: read_science_questions(args.question_file, args.single_pred_prompt),
}
"""Program -> what reads its questions, from its flags."""


def main(parser: Parser, name: str) -> None:
    """Runs the model_vqa program of this name in `READERS`."""

    def program() -> None:
        args = parser.parse_args()
        check_flags(args)
        check_answers(Path(args.answers_file), [args.question_file])
        check_cache(args.vision_feature_cache, [args.model_path, args.model_base, args.vision_tower])
        # Imports torch, so it waits until the flags are right.
        from llava.eval.answering.runner import run

        run(args, READERS[name])

    run_program(program)
