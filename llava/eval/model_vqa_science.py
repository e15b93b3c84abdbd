"""Answers ScienceQA: upstream's flags and answer lines, batched and resumable."""

from llava.eval.answering import program
from llava.eval.answering.flags import science_parser as make_parser
from llava.eval.benchmarks.scienceqa import read_science_questions


def main() -> None:
    program.main(make_parser(), lambda args: read_science_questions(args.question_file, args.single_pred_prompt))


if __name__ == "__main__":
    main()
