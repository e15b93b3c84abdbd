"""Answers a question file (TextVQA, GQA, easy-VQA, ...): upstream's flags and answer lines, batched and resumable."""

from llava.eval.arguments import question_parser
from llava.eval.questions import read_questions
from llava.eval.runner import main

if __name__ == "__main__":
    main(question_parser("Answer a question file", 128), lambda args: read_questions(args.question_file))
