"""Answers a question file (TextVQA, GQA, easy-VQA, ...): upstream's flags and answer lines, batched and resumable."""

from llava.eval.arguments import DTYPES, add_model_flags, make_answerer, question_parser, recorded_template, settings
from llava.eval.questions import read_questions
from llava.eval.runner import main

__all__ = ["DTYPES", "add_model_flags", "make_answerer", "recorded_template", "settings"]

if __name__ == "__main__":
    main(question_parser("Answer a question file", 128), lambda args: read_questions(args.question_file))
