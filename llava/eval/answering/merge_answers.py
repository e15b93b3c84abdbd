"""Joins the answers of several processes, in the order of the questions; refuses if any is missing.

`python -m llava.eval.answering.merge_answers --output merge.jsonl 4_0.jsonl 4_1.jsonl 4_2.jsonl 4_3.jsonl`
"""

from llava.eval.answering.shards import merge
from llava.flags import Parser, run_program


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="+", help="answers files of all chunks")
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    print(f"{merge(args.parts, args.output)} answers are in {args.output}")


if __name__ == "__main__":
    run_program(main)
