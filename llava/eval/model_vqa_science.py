"""Answers ScienceQA: upstream's flags and answer lines, batched and resumable."""

from llava.eval.answering.flags import science_parser as make_parser
from llava.eval.answering.runner import main
from llava.eval.benchmarks.scienceqa import read_science_questions

if __name__ == "__main__":
    main(make_parser(), lambda args: read_science_questions(args.question_file, args.single_pred_prompt))
