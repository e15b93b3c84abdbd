import pytest

from llava.eval.benchmarks.mixture import score
from llava.eval.scoring.pairing import ScoringError
from llava.eval.scoring.report import read_report
from llava.files import write_json

PLACE = {"task": "place", "answer": "red circle"}
TRUTHS = {
    "a": {"task": "count", "answer": "2"},
    "b": {"task": "count", "answer": "3"},
    "c": PLACE,
    "d": PLACE,
    "e": {"task": "read", "answer": "cat"},
}
REPLIES = {"a": " 2.", "b": "2", "c": "Red circle", "d": "blue circle", "e": ""}


def answers(**texts):
    return [{"question_id": key, "text": text} for key, text in texts.items()]


def test_by_hand(tmp_path):
    report = score(answers(**REPLIES), TRUTHS)
    assert report.per_question == {"a": 1, "b": 0, "c": 1, "d": 0, "e": 0}
    assert report.headline.value == pytest.approx(0.4)
    assert report.metrics["task_mean"].value == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert {task: m.value for task, m in report.groups["task"].items()} == {"count": 0.5, "place": 0.5, "read": 0}
    assert report.parts == {"count": ["a", "b"], "place": ["c", "d"], "read": ["e"]}
    assert report.parse_failures == 1  # the empty reply
    report.write(tmp_path / "score.json")
    assert read_report(tmp_path / "score.json").parts == report.parts


def test_a_score_from_before_parts_is_read(tmp_path):
    written = score(answers(**REPLIES), TRUTHS).as_dict()
    del written["parts"]
    write_json(tmp_path / "score.json", written)
    assert read_report(tmp_path / "score.json").parts == {}


def test_what_was_not_asked_is_in_no_part():
    report = score(answers(a="2", c="x"), TRUTHS, asked=["a", "c", "e"], missing="wrong")
    assert report.parts == {"count": ["a"], "place": ["c"], "read": ["e"]}
    assert report.headline.value == pytest.approx(1 / 3)


@pytest.mark.parametrize("truth", ["cat", {"answer": "cat"}, {"task": "read"}, {"task": 1, "answer": "cat"}])
def test_other_annotations_are_refused(truth):
    with pytest.raises(ScoringError, match="prepare --mixture"):
        score(answers(a="2"), {"a": truth})
