"""Scores MMBench answers on this machine: vanilla and circular accuracy, letters read by one frozen rule.

`python -m llava.eval.eval_mmbench --annotation-file mmbench_dev_20230712.tsv --result-file answers.jsonl`

Circular: a question is right if it is right in every rotation of its options, as many as it has options; the dev files
hold the rotations as rows, and `--all-rounds` answers make them too. A question that was not asked in all of them is
left out, and that is said. Vanilla: the first order only. The server reads letters by other means, so its
figures differ a little; `convert_mmbench_for_submission` writes what it takes.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.answering.errors import some
from llava.eval.benchmarks.mmbench import LETTERS, Row, is_none, is_rotation, options_of, question_of, read_tsv
from llava.eval.benchmarks.published import not_as_published
from llava.eval.scoring.letters import VERSION, read_letter
from llava.eval.scoring.pairing import ScoringError, model_of, pair, read_answers, run_scorer, scorer_parser
from llava.eval.scoring.report import Measure, Report, group, report_path

# A row of the file and the round in which it was asked.
Pass = tuple[str, int]


def score(answers: Sequence[Mapping[str, Any]], rows: Sequence[Row], missing: str = "error") -> Report:
    """Vanilla and circular accuracy; the headline is circular wherever questions were asked in several orders.

    Args:
        answers: lines with `question_id` (the row's index), `text`, and `round_id`, `options`, `option_char` where the
            options were rotated while asking.
        rows: the file's rows, with answers.
    """
    by_index = {row["index"].strip(): row for row in rows}
    unlabelled = [index for index, row in by_index.items() if row.get("answer", "").strip() not in LETTERS]
    if unlabelled:
        raise ScoringError(
            f"{len(unlabelled)} rows have no answer letter (a test split has none): {some(unlabelled)}; "
            "NO_SCORE=1 before mmbench.sh leaves it at the answers and the sheet for the server"
        )
    rounds = 1 + max((int(line.get("round_id") or 0) for line in answers), default=0)
    passes: dict[Pass, Row] = {
        (index, number): row
        for index, row in by_index.items()
        for number in range(1 if rounds == 1 else len(options_of(row)))
    }
    paired = pair(answers, passes, pass_of, missing=missing, name=_name)
    letters = [None if reply.text is None else letter_of(reply.line or {}, reply.truth) for reply in paired.replies]
    hits = [float(said == reply.truth["answer"].strip()) for said, reply in zip(letters, paired.replies, strict=True)]

    circles: dict[int, list[float]] = defaultdict(list)
    first: dict[int, float] = {}
    of_question: dict[int, Row] = {}
    for reply, hit in zip(paired.replies, hits, strict=True):
        index = reply.truth["index"]
        circles[question_of(index)].append(hit)
        of_question.setdefault(question_of(index), reply.truth)
        if not is_rotation(index) and reply.key == _name((index.strip(), 0)):
            first[question_of(index)] = hit
    passed = Counter(question_of(row["index"]) for row in passes.values())
    several = max(passed.values()) > 1
    # Whole is a question with an answer to every order of its options, all of which the file (or --all-rounds) has.
    whole = {
        question: found
        for question, found in circles.items()
        if len(found) == passed[question] >= len(options_of(of_question[question]))
    }
    by_metric = {"circular": {question: float(all(found)) for question, found in whole.items()} if several else {}}
    by_metric |= {"vanilla": first, "all_rows": {r.key: hit for r, hit in zip(paired.replies, hits, strict=True)}}
    metrics = {name: Measure.of(list(scores.values())) for name, scores in by_metric.items() if scores}
    headline = next(iter(metrics))
    per_question = {str(question): hit for question, hit in by_metric[headline].items()}
    warnings = list(paired.warnings)
    if not several:
        warnings.append("each question was asked in one order only: vanilla accuracy, not to be set beside circular")
    else:
        warnings += _gaps(circles, whole, passed, of_question)
    if len(first) < len(circles):
        warnings.append(f"{len(circles) - len(first)} questions lack the first order of their options: not in vanilla")
    return Report(
        benchmark="mmbench",
        metric=headline,
        metrics=metrics,
        answers=len(answers),
        parse_failures=sum(letter is None for letter, r in zip(letters, paired.replies, strict=True) if r.line),
        per_question=per_question,
        groups=_categories(of_question, per_question),
        details={"rule": VERSION, "questions": len(circles), "rows": len(hits)},
        warnings=warnings,
        model=model_of(answers),
    )


def _gaps(
    circles: Mapping[int, Sequence[float]], whole: Collection[int], passed: Mapping[int, int], rows: Mapping[int, Row]
) -> list[str]:
    """What a reader must know of the questions that are not in circular."""
    lost = [question for question in circles if question not in whole]
    unasked = [question for question in lost if passed[question] < len(options_of(rows[question]))]
    unanswered = [question for question in lost if question not in set(unasked)]
    warnings = []
    if unasked:
        warnings.append(
            f"the file lacks rotations of {len(unasked)} of {len(circles)} questions, which are not in circular: "
            f"{some(map(str, unasked))}; is it whole?"
        )
    if unanswered:
        warnings.append(
            f"{len(unanswered)} questions lack the answer to an order of their options and are not in circular"
        )
    if not whole:
        warnings.append("no question was asked in every order: vanilla accuracy, not to be set beside circular")
    return warnings


def pass_of(line: Mapping[str, Any]) -> Pass:
    return str(line["question_id"]).strip(), int(line.get("round_id") or 0)


def _name(key: Pass) -> str:
    return f"{key[0]}/{key[1]}"


def letter_of(line: Mapping[str, Any], row: Row) -> str | None:
    """The letter, in the row's own order of options, that a reply chooses.

    Raises:
        ScoringError: the line's options are not the row's.
    """
    own = options_of(row)
    shown = line.get("options") or own
    chars = line.get("option_char") or LETTERS[: len(own)]
    if sorted(map(str, shown)) != sorted(own) or sorted(chars) != list(LETTERS[: len(own)]):
        raise ScoringError(f"the answer to {row['index']} was given to the options {shown}, the file has {own}")
    letter = read_letter(line["text"], [str(option) for option in shown])
    return None if letter is None else chars[ord(letter) - ord("A")]


def _categories(rows: Mapping[int, Row], scores: Mapping[str, float]) -> dict[str, dict[str, Measure]]:
    groups = {}
    for column in ("category", "l2-category"):
        named = {str(q): row[column] for q, row in rows.items() if not is_none(row.get(column)) and str(q) in scores}
        if len(named) == len(scores):
            groups[column] = group([named[q] for q in scores], list(scores.values()))
    return groups


def main() -> None:
    parser = scorer_parser(__doc__)
    parser.add_argument("--annotation-file", required=True, help="the MMBench TSV with answers")
    args = parser.parse_args()
    if args.question_file:
        raise ScoringError(
            "--question-file: MMBench's TSV holds questions and answers; give a part of it as --annotation-file"
        )
    rows = read_tsv(args.annotation_file)
    report = score(read_answers(args.result_file), rows, args.missing)
    report.details["file"] = Path(args.annotation_file).name
    report.warnings += not_as_published("mmbench", len(rows))
    report.publish(report_path(args.report_file, args.result_file))


if __name__ == "__main__":
    run_scorer(main)
