"""A stated part of a question file: the same number of questions of every category, always the same ones.

`python -m llava.eval.answering.subset --question-file Q --per-category 20 --output Q20`. With --without-images the
questions lose their images, which shows what a model knows without looking.
"""

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.scoring.pairing import ScoringError, read_jsonl
from llava.files import written_whole
from llava.flags import run_program


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


def write_subset(source: Path, per_category: int | None, output: Path, images: bool = True) -> tuple[int, int]:
    """Writes the subset of a JSON-lines question file; returns how many lines of how many it has.

    Args:
        per_category: None takes every question.
        images: False leaves the images out.
    """
    if per_category is not None and per_category < 1:
        raise ScoringError(f"--per-category is {per_category}; at least 1 question of each category is needed")
    rows = read_jsonl(source)
    bad = [number for number, row in enumerate(rows, start=1) if not {"question_id", "text"} <= row.keys()]
    if bad or not rows:
        raise ScoringError(f"{source}: line {bad[0]} is not a question" if bad else f"{source} holds no questions")
    chosen = choose(rows, len(rows) if per_category is None else per_category)
    left_out = () if images else ("image",)
    kept = [{key: value for key, value in rows[i].items() if key not in left_out} for i in chosen]
    with written_whole(output) as aside:
        aside.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    return len(chosen), len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="A stated part of a question file")
    parser.add_argument("--question-file", required=True, type=Path)
    parser.add_argument("--per-category", type=int, help="questions of each category, at most; default: all")
    parser.add_argument("--without-images", action="store_true", help="leave the images out")
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()
    kept, total = write_subset(args.question_file, args.per_category, args.output, not args.without_images)
    each = f", {args.per_category} of each category" if args.per_category else ""
    images = ", without images" if args.without_images else ""
    print(f"a subset: {kept} of {total} questions{each}{images}, are in {args.output}")


if __name__ == "__main__":
    run_program(main, interrupted="")
