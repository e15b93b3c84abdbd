"""Answers a question file with long answers: upstream's flags and answer lines, batched and resumable."""

from llava.eval.answering.arguments import question_parser
from llava.eval.answering.questions import read_questions
from llava.eval.answering.runner import main

if __name__ == "__main__":
    parser = question_parser("Answer a question file, with up to 1024 new tokens", 1024, "tables/question.jsonl")
    main(parser, lambda args: read_questions(args.question_file))
