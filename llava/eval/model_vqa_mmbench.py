"""Answers MMBench: upstream's flags and answer lines, batched and resumable."""

from llava.eval.answering import program
from llava.eval.answering.flags import mmbench_parser as make_parser
from llava.eval.benchmarks.mmbench import read_mmbench_questions


def main() -> None:
    program.main(
        make_parser(),
        lambda args: read_mmbench_questions(args.question_file, args.single_pred_prompt, args.all_rounds, args.lang),
    )


if __name__ == "__main__":
    main()
