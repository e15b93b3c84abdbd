import json

import pytest

from llava.eval.scoring.pairing import (
    CHECK,
    ScoringError,
    asked_ids,
    model_of,
    pair,
    read_answers,
    read_json,
    read_jsonl,
)

ANNOTATIONS = {"1": "a", "2": "b", "3": "c"}


def said(*ids):
    return [{"question_id": int(i), "text": "x"} for i in ids]


def test_pairs_follow_the_annotations_whatever_the_order():
    assert [r.key for r in pair(said(3, 1, 2), ANNOTATIONS).replies] == ["1", "2", "3"]
    assert not pair(said(3, 1, 2), ANNOTATIONS).warnings


@pytest.mark.parametrize(
    ("answers", "options", "words"),
    [
        (said(1, 1, 2, 3), {}, "1 question id is answered more than once: 1"),
        (said(1, 2, 3, 9), {}, "1 question id is not among the annotations: 9"),
        (
            said(1),
            {},
            r"2 question ids are not answered: 2, 3 \(MISSING=wrong or MISSING=skip before a script.*--missing",
        ),
        (said(1, 2), {"asked": ["1"]}, "answered but not asked: 2"),
        (said(1), {"asked": ["1", "7"], "missing": "skip"}, "not among the annotations: 7"),
        ([], {"asked": ["1", "2", "1"], "missing": CHECK}, "1 question id is asked more than once: 1"),
        ([], {"missing": "skip"}, "no answers to score"),
        (said(1), {"missing": "maybe"}, "allowed: error, wrong, skip"),
        (said(9, 1, 1), {}, "more than once: 1; 1 .* not among the annotations: 9; 2 .* not answered: 2, 3"),
    ],
)
def test_what_does_not_belong_together(answers, options, words):
    with pytest.raises(ScoringError, match=words):
        pair(answers, ANNOTATIONS, **options)


def test_fewer_samples_are_said():
    subset = pair(said(1), ANNOTATIONS, asked=["1"])
    assert subset.warnings == ["a subset: 1 of the 3 annotated questions was asked"]
    skipped = pair(said(1), ANNOTATIONS, missing="skip")
    assert len(skipped.replies) == 1
    assert skipped.warnings == ["2 of 3 questions have no answer and are left out"]
    wrong = pair(said(1), ANNOTATIONS, missing="wrong")
    assert [r.text for r in wrong.replies] == ["x", None, None]
    assert wrong.warnings == ["2 of 3 questions have no answer and count as wrong"]


def test_files(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(ScoringError, match="does not exist"):
        read_answers(path)
    path.write_text("")
    with pytest.raises(ScoringError, match="holds no answers"):
        read_answers(path)
    path.write_text('{"question_id": 1, "text": "a"}\n{"question_id": 2, "te')
    with pytest.raises(
        ScoringError, match=r"line 2 is not valid JSON: .* run the model again, which answers the missing"
    ):
        read_answers(path)
    path.write_text('{"question_id": 1, "text": null}\n')
    with pytest.raises(ScoringError, match="question_id and text"):
        read_answers(path)
    path.write_text("[1]\n")
    with pytest.raises(ScoringError, match="line 1 is not a JSON object"):
        read_jsonl(path)
    path.write_text('{"data": [1, 2')
    with pytest.raises(ScoringError, match="is it whole"):
        read_json(path)
    # U+2028 separates no lines of JSON lines, whatever str.splitlines thinks.
    path.write_text(json.dumps({"question_id": 1, "text": "a\u2028b"}, ensure_ascii=False) + "\n")
    assert read_answers(path)[0]["text"] == "a\u2028b"


def test_ids_of_questions(tmp_path):
    path = tmp_path / "q.jsonl"
    assert asked_ids(None) is None
    path.write_text('{"question_id": 1}\n{"question_id": "b"}\n')
    assert asked_ids(path) == ["1", "b"]
    path.write_text('{"question_id": 1}\n{"id": 2}\n')
    with pytest.raises(ScoringError, match=r"question file .*q\.jsonl: 1 question has no question_id: question 2"):
        asked_ids(path)
    path.write_text("\n")
    with pytest.raises(ScoringError, match="holds no questions"):
        asked_ids(path)


def test_one_model_at_a_time():
    assert model_of([{"model_id": "m"}, {"model_id": "m"}]) == "m"
    assert model_of([{}]) is None
    with pytest.raises(ScoringError, match="several models: m, n"):
        model_of([{"model_id": "m"}, {"model_id": "n"}])
