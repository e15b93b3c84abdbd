"""Answers ScienceQA: upstream's flags and answer lines, batched and resumable."""

from llava.eval.answering import program
from llava.eval.answering.flags import science_parser as make_parser


def main() -> None:
    program.main(make_parser(), "model_vqa_science")


if __name__ == "__main__":
    main()
