"""Answers MMBench: upstream's flags and answer lines, batched and resumable."""

from llava.eval.answering import program
from llava.eval.answering.flags import mmbench_parser as make_parser


def main() -> None:
    program.main(make_parser(), "model_vqa_mmbench")


if __name__ == "__main__":
    main()
