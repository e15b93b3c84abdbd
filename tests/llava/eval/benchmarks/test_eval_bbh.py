import random

import pytest

from llava.eval.benchmarks.bbh import score
from llava.eval.scoring.pairing import ScoringError

ANNOTATIONS = {
    "snarks/0": {"task": "snarks", "input": "Which?\nOptions:\n(A) this\n(B) that", "target": "(A)"},
    "snarks/1": {"task": "snarks", "input": "Which?\nOptions:\n(A) this\n(B) that", "target": "(B)"},
    "snarks/2": {"task": "snarks", "input": "Which?\nOptions:\n(A) this\n(B) that", "target": "(B)"},
    "navigate/0": {"task": "navigate", "input": "Do you?", "target": "No"},
}
REPLIES = {"snarks/0": "(A)", "snarks/1": "I say that", "snarks/2": "this", "navigate/0": "maybe"}


def answers(replies):
    return [{"question_id": name, "text": text, "model_id": "m"} for name, text in replies.items()]


def test_by_hand():
    report = score(answers(REPLIES), ANNOTATIONS)
    assert report.headline.value == report.metrics["flexible"].value == 0.5
    assert report.metrics["strict"].value == 0.25
    assert report.metrics["flexible_task_mean"].value == pytest.approx((2 / 3 + 0) / 2)
    assert report.metrics["strict_task_mean"].value == pytest.approx((1 / 3 + 0) / 2)
    assert report.parse_failures == 1
    assert report.groups["flexible, task"]["snarks"].value == pytest.approx(2 / 3)
    assert report.groups["flexible, task"]["snarks"].samples == 3
    assert report.per_question == {"snarks/0": 1, "snarks/1": 1, "snarks/2": 0, "navigate/0": 0}
    assert any("2 of the 27 tasks" in text for text in report.warnings)
    low, high = report.headline.low, report.headline.high
    assert 0 <= low < 0.5 < high <= 1


def test_references_score_one_in_any_order():
    given = answers({name: truth["target"] for name, truth in ANNOTATIONS.items()})
    random.Random(0).shuffle(given)
    report = score(given, ANNOTATIONS)
    assert {measure.value for measure in report.metrics.values()} == {1.0}
    assert report.parse_failures == 0


def test_what_does_not_belong_together():
    with pytest.raises(ScoringError, match="not among the annotations: snarks/9"):
        score(answers(REPLIES | {"snarks/9": "x"}), ANNOTATIONS)
    with pytest.raises(ScoringError, match="not answered: navigate/0"):
        score(answers({k: v for k, v in REPLIES.items() if k != "navigate/0"}), ANNOTATIONS)
    with pytest.raises(ScoringError, match="unknown BIG-bench-hard tasks in the annotations: chess"):
        score(answers({"a": "b"}), {"a": {"task": "chess", "input": "", "target": "b"}})


def test_a_subset_says_so():
    kept = ["snarks/0", "navigate/0"]
    report = score(answers({name: REPLIES[name] for name in kept}), ANNOTATIONS, asked=kept)
    assert report.headline.samples == 2
    assert any("2 of the 4 annotated questions" in text for text in report.warnings)


def test_any_reply_in_any_order():
    rng = random.Random(1)
    pieces = ["(A)", "(B)", "this", "that", "No", "yes", "\u2028", "é", "\n", "*", " ", ":", "["]
    for _ in range(100):
        given = answers({name: "".join(rng.choices(pieces, k=rng.randrange(8))) for name in ANNOTATIONS})
        report = score(given, ANNOTATIONS)
        rng.shuffle(given)
        assert score(given, ANNOTATIONS).as_dict() == report.as_dict()
        assert report.metrics["strict"].value <= report.metrics["flexible"].value
        for measure in report.metrics.values():
            assert 0 <= measure.low <= measure.value + 1e-12
            assert measure.value - 1e-12 <= measure.high <= 1
