"""Answers a question file with long answers: upstream's flags and answer lines, batched and resumable."""

from llava.eval.answering import program
from llava.eval.answering.flags import long_parser as make_parser


def main() -> None:
    program.main(make_parser(), "model_vqa")


if __name__ == "__main__":
    main()
