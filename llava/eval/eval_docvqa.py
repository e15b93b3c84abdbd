"""Scores DocVQA answers: relaxed accuracy (the paper's number), exact match and ANLS (the benchmark's own).

`python -m llava.eval.eval_docvqa --annotation-file val_v1.0_withQT.json --result-file answers.jsonl`
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.answering.errors import some
from llava.eval.benchmarks.published import not_as_published
from llava.eval.scoring.pairing import ScoringError, asked_ids, read_answers, read_json, run_scorer, scorer_parser
from llava.eval.scoring.report import Measure, Report, report_path
from llava.eval.scoring.rules import anls, exact, relaxed_correctness
from llava.eval.scoring.short_answers import score_short_answers

RULES = {"relaxed": relaxed_correctness, "exact": exact, "anls": anls}


def entries_of(annotations: Mapping[str, Any], split: str = "val") -> dict[str, dict[str, Any]]:
    """Question id -> entry of the official file.

    Raises:
        ScoringError: another kind of file, another split, or one without answers.
    """
    try:
        entries = {str(entry["questionId"]): entry for entry in annotations["data"]}
        found = {entry.get("data_split", split) for entry in entries.values()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ScoringError(f"the annotations are not a DocVQA file of questions ({error!r})") from error
    if found - {split}:
        raise ScoringError(f"the annotations are of split {', '.join(sorted(found))}, not {split}")
    bare = [key for key, entry in entries.items() if not entry.get("answers")]
    if bare:
        raise ScoringError(f"{len(bare)} annotations have no answers (the test split has none): {some(bare)}")
    return entries


def score(
    answers: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, Any],
    split: str = "val",
    asked: Sequence[str] | None = None,
    missing: str = "error",
) -> Report:
    """Relaxed, exact and ANLS. `annotations` is the content of the official file."""
    entries = entries_of(annotations, split)
    references = {key: [str(answer) for answer in entry["answers"]] for key, entry in entries.items()}
    report, paired = score_short_answers("docvqa", answers, references, RULES, asked, missing)
    report.details |= {"split": split, "anls_threshold": 0.5}
    kinds = defaultdict(list)
    for reply in paired.replies:
        # A question may be of several types; official files without them are older.
        for kind in entries[reply.key].get("question_types") or []:
            kinds[kind].append(report.per_question[reply.key])
    if kinds:
        report.groups["question type"] = {kind: Measure.of(scores) for kind, scores in sorted(kinds.items())}
    return report


def main() -> None:
    parser = scorer_parser(__doc__)
    parser.add_argument("--annotation-file", required=True, help="val_v1.0_withQT.json or val_v1.0.json")
    parser.add_argument("--split", default="val")
    args = parser.parse_args()
    annotations, asked = read_json(args.annotation_file), asked_ids(args.question_file)
    report = score(read_answers(args.result_file), annotations, args.split, asked, args.missing)
    report.details["file"] = Path(args.annotation_file).name
    if args.split == "val":
        report.warnings += not_as_published("docvqa", len(annotations["data"]))
    report.publish(report_path(args.report_file, args.result_file))


if __name__ == "__main__":
    run_scorer(main)
