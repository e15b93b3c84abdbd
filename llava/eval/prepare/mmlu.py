"""MMLU: the dev and test files of its archive to questions with their examples."""

from pathlib import Path

from llava.eval.prepare.common import Options, PrepareError
from llava.eval.prepare_text import prepare_mmlu


def prepare(raw: Path, out: Path, options: Options) -> int:
    """Writes questions.jsonl and annotations.json; returns the number of questions."""
    if options.sample is not None:
        raise PrepareError("mmlu has no --sample; LIMIT_PER_TASK=N bash scripts/eval/mmlu.sh asks a part of it")
    asked = prepare_mmlu(raw, out, options.check_counts)
    print(f"{asked} questions written to {out / 'questions.jsonl'}")
    return asked
