"""MMBench: the TSV is its own question file; it is checked, images and all."""

from pathlib import Path

from llava.eval.mmbench import decode_image, question_of, read_tsv
from llava.eval.prepare.common import Options, PrepareError, check_count, find, place

FILE = "mmbench_dev_20230712.tsv"
PUBLISHED = 1164


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Checks mmbench_dev_20230712.tsv; returns the number of rows, of which each question has one per rotation."""
    if options.sample is not None:
        raise PrepareError("mmbench is one file that upstream's scripts read as it is; --sample cannot cut it")
    source = find(raw, FILE)
    rows = read_tsv(source)
    questions = {question_of(row["index"]) for row in rows}
    check_count("questions", len(questions), PUBLISHED, options)
    for row in rows:
        decode_image(row)
    place(source, out / FILE)
    print(f"{out / FILE}: {len(questions)} questions in {len(rows)} rows, every image whole")
    return len(rows)
