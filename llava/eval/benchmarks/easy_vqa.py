"""easy-VQA, which the quickstart trains on: exact match, by kind of question. It is not one of the paper's."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from llava.eval.benchmarks.base import Benchmark
from llava.eval.scoring.pairing import Answers, ScoringError, pair
from llava.eval.scoring.report import Measure, Report, group
from llava.eval.scoring.rules import normalise
from llava.eval.scoring.statistics import wilson

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
KINDS = ("all", "shape", "colour", "yes_no")


def kind_of(answer: str) -> str:
    return "shape" if answer in SHAPES else "colour" if answer in COLOURS else "yes_no"


def as_report(
    answers: Answers, annotations: Mapping[str, str], asked: Iterable[str] | None = None, missing: str = "error"
) -> Report:
    """The report; a reply that is not one of the data set's answers counts as unreadable.

    Its `extra` holds `all`, `shape`, `colour`, `yes_no`: accuracy in [0, 1] (None for a kind without questions);
    `questions`: their number; `counts` and `intervals` (Wilson, 95%) by kind.
    """
    if not isinstance(annotations, Mapping) or not all(isinstance(truth, str) for truth in annotations.values()):
        raise ScoringError("the annotations are not easy-VQA's: an object of question ids, each with its answer")
    paired = pair(answers, annotations, asked=asked, missing=missing)
    right = [float(reply.text is not None and normalise(reply.text) == reply.truth) for reply in paired.replies]
    known = {*SHAPES, *COLOURS, "yes", "no"}
    report = Report.of("easy_vqa", paired, right, {"accuracy": Measure.of(right)}, details={"rule": "exact match"})
    report.parse_failures = sum(normalise(line["text"]) not in known for line in answers)
    report.groups["kind"] = group([kind_of(reply.truth) for reply in paired.replies], right)
    report.extra = _by_kind(report)
    return report


def common_answers(train: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The most frequent answer to each question text."""
    seen: dict[str, Counter] = defaultdict(Counter)
    for question, answer in train:
        seen[question][answer] += 1
    return {question: counts.most_common(1)[0][0] for question, counts in seen.items()}


def blind_baseline(train: Iterable[tuple[str, str]], test: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The score of the most frequent training answer to each question text, without the image."""
    guesses = common_answers(train)
    return _tally((kind_of(answer), guesses.get(question) == answer) for question, answer in test)


def _by_kind(report: Report) -> dict[str, Any]:
    return _tally((kind_of(reply.truth), report.per_question[reply.key]) for reply in report.replies)


def _tally(results: Iterable[tuple[str, float]]) -> dict[str, Any]:
    right, total = Counter(), Counter()
    for kind, correct in results:
        for name in ("all", kind):
            right[name] += correct
            total[name] += 1
    return {
        **{kind: right[kind] / total[kind] if total[kind] else None for kind in KINDS},
        "questions": total["all"],
        "counts": {kind: total[kind] for kind in KINDS},
        "intervals": {kind: wilson(right[kind], total[kind]) for kind in KINDS if total[kind]},
    }


EASY_VQA = Benchmark(
    name="easy_vqa",
    column="easy-VQA",
    annotations=("annotations.json",),
    score=as_report,
    visual=False,
    paper=False,
    images="./playground/data/easy_vqa/images",
    answer_flags=("--max_new_tokens", "8"),
    answers="answers/{stem}/{name}.jsonl",
    annotation_help="annotations.json: question id -> answer",
    add_score_flags=lambda parser: parser.add_argument(
        "--output-file", dest="report_file", help="the same as --report-file"
    ),
)
