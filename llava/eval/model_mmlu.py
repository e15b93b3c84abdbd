"""Answers MMLU's questions (llava/eval/answering/mmlu.py).

`python -m llava.eval.model_mmlu --model-path C --question-file Q --shots-file S --answers-file A [--method M]`
"""

from pathlib import Path

from llava.eval.answering.answers_file import check_answers
from llava.eval.answering.flags import check_flags
from llava.eval.answering.flags import mmlu_parser as make_parser
from llava.flags import run_program


def _main() -> None:
    args = make_parser().parse_args()
    check_flags(args)
    check_answers(Path(args.answers_file), [args.question_file, args.shots_file])
    # Imports torch, so it waits until the flags are right.
    from llava.eval.answering.arguments import open_model
    from llava.eval.answering.mmlu import answer

    answer(args, open_model(args))


def main() -> None:
    run_program(_main)


if __name__ == "__main__":
    main()
