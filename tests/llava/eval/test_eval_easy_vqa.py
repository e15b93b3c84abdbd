import pytest

from llava.eval.eval_easy_vqa import ScoringError, as_report, blind_baseline, score

ANNOTATIONS = {"1": "circle", "2": "yes", "3": "no", "4": "teal"}


def answers(**texts):
    return [{"question_id": int(i[1:]), "text": text} for i, text in texts.items()]


def test_by_hand():
    result = score(answers(q1=" Circle. ", q2="no", q3="no", q4="blue"), ANNOTATIONS)
    assert (result["all"], result["shape"], result["colour"], result["yes_no"]) == (0.5, 1.0, 0.0, 0.5)
    assert result["questions"] == 4
    low, high = result["intervals"]["all"]
    assert 0 <= low < 0.5 < high <= 1


def test_a_kind_without_questions_has_no_score():
    assert score(answers(q1="circle"), ANNOTATIONS)["colour"] is None


@pytest.mark.parametrize(
    ("given", "expected", "words"),
    [
        (answers(q1="a") * 2, None, "answered more than once: 1"),
        (answers(q9="a"), None, "not among the annotations: 9"),
        (answers(q1="a"), [1, 2], "not answered: 2"),
        ([], None, "no answers"),
    ],
)
def test_what_does_not_belong_together(given, expected, words):
    with pytest.raises(ScoringError, match=words):
        score(given, ANNOTATIONS, expected)


def test_blind_baseline():
    train = [("what?", "circle"), ("what?", "circle"), ("what?", "teal")]
    result = blind_baseline(train, [("what?", "circle"), ("what?", "teal"), ("never asked?", "yes")])
    assert (result["shape"], result["colour"], result["yes_no"]) == (1.0, 0.0, 0.0)


def test_the_shape_of_all_benchmarks_tells_the_same():
    given = answers(q1=" Circle. ", q2="It is no", q3="no", q4="blue")
    report, result = as_report(given, ANNOTATIONS), score(given, ANNOTATIONS)
    assert report.headline.value == result["all"] == 0.5
    assert (report.headline.low, report.headline.high) == result["intervals"]["all"]
    assert {name: measure.value for name, measure in report.groups["kind"].items()} == {
        kind: result[kind] for kind in ("colour", "shape", "yes_no")
    }
    assert report.per_question == {"1": 1, "2": 0, "3": 1, "4": 0}
    assert report.parse_failures == 1
    assert not set(report.as_dict()) & set(result)
