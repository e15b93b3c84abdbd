"""Answers a question file with long answers: upstream's flags and answer lines, batched and resumable."""

from llava.eval.answering import program
from llava.eval.answering.flags import long_parser as make_parser
from llava.eval.answering.questions import read_questions


def main() -> None:
    program.main(make_parser(), lambda args: read_questions(args.question_file))


if __name__ == "__main__":
    main()
