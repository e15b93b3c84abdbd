"""Scores short free answers against several references, of which any will do, by one or more rules."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llava.eval.scoring.pairing import Answers, pair
from llava.eval.scoring.report import Measure, Report
from llava.eval.scoring.rules import best

UNPUBLISHED = "the paper's rule for this benchmark is not published; every rule that may be meant is among the metrics"
"""For the details of a score."""


def score_short_answers(
    benchmark: str,
    answers: Answers,
    references: Mapping[str, Sequence[str]],
    rules: Mapping[str, Callable[[str, str], float]],
    asked: Sequence[str] | None = None,
    missing: str = "error",
    **changes: Any,
) -> Report:
    """Mean over questions of the best score over a question's references, for each rule.

    Args:
        references: question id -> reference answers.
        rules: name -> (reference, reply) -> score in [0, 1]; the first is the headline.
    """
    paired = pair(answers, references, asked=asked, missing=missing)
    by_rule = {
        name: [0.0 if reply.text is None else best(rule, reply.text, reply.truth) for reply in paired.replies]
        for name, rule in rules.items()
    }
    metrics = {name: Measure.of(scores) for name, scores in by_rule.items()}
    return Report.of(benchmark, paired, next(iter(by_rule.values())), metrics, **changes)
