"""BIG-bench-hard: the 27 task files to zero-shot questions."""

from pathlib import Path

from llava.eval.prepare.common import Options, PrepareError
from llava.eval.prepare_text import prepare_bbh


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl and annotations.json; returns the number of questions."""
    if options.sample is not None:
        raise PrepareError("bbh has no --sample; LIMIT_PER_TASK=N bash scripts/eval/bbh.sh asks a part of it")
    asked = prepare_bbh(raw, out, options.check_counts)
    print(f"{asked} questions written to {out / 'questions.jsonl'}")
    return asked
