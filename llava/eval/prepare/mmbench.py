"""MMBench: the TSV is its own question file; it is checked, images and all."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from llava.eval.answering.errors import some
from llava.eval.benchmarks.mmbench import Row, decode_image, options_of, question_of, read_tsv
from llava.eval.prepare.common import Options, PrepareError, find, place

FILE = "mmbench_dev_20230712.tsv"


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Checks mmbench_dev_20230712.tsv; returns the number of rows, of which each question has one per rotation."""
    if options.sample is not None:
        raise PrepareError("mmbench is one file that upstream's scripts read as it is; --sample cannot cut it")
    source = find(raw, FILE)
    rows = read_tsv(source)
    if options.check_counts:
        check_rotations(rows)
    for row in rows:
        decode_image(row)
    place(source, out / FILE)
    questions = {question_of(row["index"]) for row in rows}
    print(f"{out / FILE}: {len(questions)} questions in {len(rows)} rows, every image whole")
    return len(rows)


def check_rotations(rows: Sequence[Row]) -> None:
    """Raises `PrepareError` where a question lacks the row of a rotation: a file cut off between two rows.

    Versions of the dev set differ by a few questions, so that their number tells less.
    """
    found = Counter(question_of(row["index"]) for row in rows)
    options = {question_of(row["index"]): len(options_of(row)) for row in rows}
    lacking = [question for question, count in found.items() if count != options[question]]
    if lacking:
        raise PrepareError(
            f"{len(lacking)} of {len(found)} questions have not one row for each rotation of their options: "
            f"{some(map(str, lacking))}; is the file whole? --any-count goes on with what is there"
        )
