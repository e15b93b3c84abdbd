"""Answers MMBench: upstream's flags and answer lines, batched and resumable."""

from llava.eval.answering.flags import mmbench_parser as make_parser
from llava.eval.answering.runner import main
from llava.eval.benchmarks.mmbench import read_mmbench_questions

if __name__ == "__main__":
    main(
        make_parser(),
        lambda args: read_mmbench_questions(args.question_file, args.single_pred_prompt, args.all_rounds, args.lang),
    )
