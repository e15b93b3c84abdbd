"""Scores OCR-VQA answers: relaxed accuracy (the paper's number) and exact match.

`python -m llava.eval.eval_ocrvqa --annotation-file dataset.json --question-file Q --result-file answers.jsonl`

Relaxed: numbers may be off by 5% of the reference. Exact: Qwen-VL's and VLMEvalKit's rule for this set. Both ignore
case and outer blanks only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmarks.published import not_as_published
from llava.eval.scoring.pairing import ScoringError, asked_ids, read_answers, read_json, run_scorer, scorer_parser
from llava.eval.scoring.report import Report, report_path
from llava.eval.scoring.rules import exact, relaxed_correctness
from llava.eval.scoring.short_answers import score_short_answers

SPLITS = {"train": 1, "val": 2, "test": 3}
RULES = {"relaxed": relaxed_correctness, "exact": exact}


def pairs_of(books: Mapping[str, Any], split: str) -> dict[str, tuple[str, str, str]]:
    """Question id (BOOK_NUMBER) -> book, question, answer, of a split of the official file.

    Raises:
        ScoringError: another kind of file, or nothing in the split.
    """
    pairs = {}
    try:
        for book, entry in books.items():
            if entry["split"] == SPLITS[split]:
                for number, texts in enumerate(zip(entry["questions"], entry["answers"], strict=True)):
                    pairs[f"{book}_{number}"] = (book, *map(str, texts))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ScoringError(f"the annotations are not OCR-VQA's dataset.json ({error!r})") from error
    if not pairs:
        found = sorted({str(entry["split"]) for entry in books.values()})
        raise ScoringError(
            f"the annotations have no question of split {split} ({SPLITS[split]}); they have {', '.join(found)}"
        )
    return pairs


def score(
    answers: Sequence[Mapping[str, Any]],
    books: Mapping[str, Any],
    split: str = "test",
    asked: Sequence[str] | None = None,
    missing: str = "error",
) -> Report:
    """Relaxed and exact accuracy. `books` is the content of dataset.json."""
    references = {key: [answer] for key, (_, _, answer) in pairs_of(books, split).items()}
    report, _ = score_short_answers("ocrvqa", answers, references, RULES, asked, missing)
    report.details |= {"split": split, "rule": "5% of the reference, case-blind"}
    return report


def main() -> None:
    parser = scorer_parser(__doc__)
    parser.add_argument("--annotation-file", required=True, help="dataset.json")
    parser.add_argument("--split", choices=SPLITS, default="test")
    args = parser.parse_args()
    books, asked = read_json(args.annotation_file), asked_ids(args.question_file)
    report = score(read_answers(args.result_file), books, args.split, asked, args.missing)
    report.details["file"] = Path(args.annotation_file).name
    report.warnings += not_as_published("ocrvqa", len(books))
    report.publish(report_path(args.report_file, args.result_file))


if __name__ == "__main__":
    run_scorer(main)
