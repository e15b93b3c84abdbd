"""Answers a question file (TextVQA, GQA, easy-VQA, ...): upstream's flags and answer lines, batched and resumable."""

from llava.eval.answering import program
from llava.eval.answering.flags import loader_parser as make_parser


def main() -> None:
    program.main(make_parser(), "model_vqa_loader")


if __name__ == "__main__":
    main()
