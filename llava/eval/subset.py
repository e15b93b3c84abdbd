"""A stated part of a question file: the same number of questions of every category, always the same ones.

`python -m llava.eval.subset --question-file Q --per-category 20 --output Q20`
"""

import argparse
import json
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.runner import EvaluationError, read_questions
from llava.files import written_whole


def choose(rows: Sequence[dict[str, Any]], per_category: int) -> list[int]:
    """Indices of at most `per_category` rows of each `category`, drawn once and for all, in the order of the rows.

    A smaller number gives a part of what a greater one gives, and a category's draw does not depend on the others.
    """
    by_category: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        by_category[str(row.get("category"))].append(i)
    chosen = []
    for category, indices in by_category.items():
        random.Random(category).shuffle(indices)
        chosen += indices[:per_category]
    return sorted(chosen)


def write_subset(source: Path, per_category: int, output: Path) -> tuple[int, int]:
    """Writes the subset of a JSON-lines question file; returns how many lines of how many it has."""
    if per_category < 1:
        raise EvaluationError(f"--per-category is {per_category}; at least 1 question of each category is needed")
    read_questions(source)  # every line is checked before any is chosen
    lines = [line for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    chosen = choose([json.loads(line) for line in lines], per_category)
    with written_whole(output) as aside:
        aside.write_text("".join(lines[i] + "\n" for i in chosen), encoding="utf-8")
    return len(chosen), len(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="A stated part of a question file")
    parser.add_argument("--question-file", required=True, type=Path)
    parser.add_argument("--per-category", required=True, type=int, help="questions of each category, at most")
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()
    try:
        kept, total = write_subset(args.question_file, args.per_category, args.output)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(f"a subset: {kept} of {total} questions, {args.per_category} of each category, are in {args.output}")


if __name__ == "__main__":
    main()
