"""Joins the answers of several processes, in the order of the questions; refuses where any is missing.

`python -m llava.eval.answering.merge_answers --output merge.jsonl 4_0.jsonl 4_1.jsonl 4_2.jsonl 4_3.jsonl`
"""

import argparse
import sys

from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.shards import merge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="+", help="answers files of all chunks")
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    try:
        count = merge(args.parts, args.output)
    except (EvaluationError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{count} answers are in {args.output}")


if __name__ == "__main__":
    main()
