"""Part of a question file: the same number of questions of every category, always the same ones.

`python -m llava.eval.answering.subset --question-file Q --per-category 20 --output Q20`. With --without-images the
questions lose their images, which shows what a model knows without looking.
"""

import csv
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from llava.eval.scoring.mmbench_tsv import question_of, read_tsv
from llava.eval.scoring.pairing import ScoringError, read_jsonl, read_questions
from llava.files import written_whole
from llava.flags import Parser, run_program
from llava.names import count
from llava.outputs import QUESTIONS, check_files


def write_subset(source: Path, per_category: int | None, output: Path, images: bool = True) -> tuple[int, int]:
    """Writes at most `per_category` lines (None: all) of each `category` of a JSON-lines question file, in its order.

    The lines of a smaller number are among those of a larger one, and a category's draw does not depend on the others.

    Returns:
        Numbers of lines written and read.
    """
    if per_category is not None and per_category < 1:
        raise ScoringError(f"--per-category is {per_category}; at least 1 question of each category is needed")
    rows = read_jsonl(source)
    bad = [number for number, row in enumerate(rows, start=1) if not {"question_id", "text"} <= row.keys()]
    if bad or not rows:
        raise ScoringError(f"{source}: line {bad[0]} is not a question" if bad else f"{source} holds no questions")
    by_category: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        by_category[str(row.get("category"))].append(i)
    chosen = []
    for category, indices in by_category.items():
        random.Random(category).shuffle(indices)
        chosen += indices[:per_category]
    kept = [{key: value for key, value in rows[i].items() if images or key != "image"} for i in sorted(chosen)]
    with written_whole(output) as aside:
        aside.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    return len(chosen), len(rows)


def write_spread(source: Path, most: int, output: Path) -> tuple[int, int]:
    """Writes at most so many questions, evenly spaced over a question file of any form, which the output has too.

    The forms are JSON lines, a list in JSON, and MMBench's TSV, in which all rotations of a question stay together.

    Returns:
        Numbers of questions written and read.
    """
    groups: dict[Any, list[Any]] = defaultdict(list)
    if source.suffix == ".tsv":
        for row in read_tsv(source):
            groups[question_of(row["index"])].append(row)
    else:
        for i, row in enumerate(read_questions(source)):
            groups[i].append(row)
    keys, kept = list(groups), min(most, len(groups))
    rows = [row for i in range(kept) for row in groups[keys[i * len(keys) // kept]]]
    with written_whole(output) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
        if source.suffix == ".tsv":
            writer = csv.DictWriter(file, list(rows[0]), dialect="excel-tab")
            writer.writeheader()
            writer.writerows(rows)
        elif source.suffix == ".json":
            json.dump(rows, file)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return kept, len(keys)


def main() -> None:
    parser = Parser(description="Part of a question file")
    parser.add_argument("--question-file", required=True, type=Path)
    parser.add_argument("--per-category", type=int, help="questions of each category, at most; default: all")
    parser.add_argument("--without-images", action="store_true", help="leave the images out")
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()
    check_files({"--output": (args.output, QUESTIONS)}, [args.question_file])
    kept, total = write_subset(args.question_file, args.per_category, args.output, not args.without_images)
    each = f", {args.per_category} of each category" if args.per_category else ""
    images = ", without images" if args.without_images else ""
    print(f"a subset in {args.output}: {kept} of {count(total, 'question')}{each}{images}")


if __name__ == "__main__":
    run_program(main, interrupted="")
