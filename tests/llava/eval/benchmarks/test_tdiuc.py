import json
import sys

import numpy as np
import pytest

from llava.eval.benchmarks.preparing import Options, PrepareError
from llava.eval.benchmarks.tdiuc import TDIUC, TYPES, prepare, read_answer_key, score
from llava.eval.scoring.pairing import ScoringError
from tests.made_benchmarks import MAKERS, rows_of


def annotation(number, kind, *answers):
    return {
        "question_id": number,
        "question_type": kind,
        "answers": [{"answer": a, "answer_id": i, "answer_confidence": "yes"} for i, a in enumerate(answers)],
    }


# color: red right, red wrong, red right, blue wrong. counting: two right. absurd: one wrong.
ANNOTATIONS = {
    "annotations": [
        annotation(1, "color", "red"),
        annotation(2, "color", "red"),
        annotation(3, "color", "red", "blue"),
        annotation(4, "color", "blue"),
        annotation(5, "counting", "2"),
        annotation(6, "counting", "three"),
        annotation(7, "absurd", "doesnotapply"),
    ]
}


def said(**texts):
    return [{"question_id": int(i[1:]), "text": text} for i, text in texts.items()]


ANSWERS = said(q1="Red.", q2="green", q3=" red", q4="red", q5="2", q6="Three", q7="yes")


def test_by_hand():
    report = score(ANSWERS, ANNOTATIONS)
    value = {name: measure.value for name, measure in report.metrics.items()}
    assert value["accuracy"] == pytest.approx(4 / 7)
    assert value["accuracy_without_absurd"] == pytest.approx(4 / 6)
    assert {kind: m.value for kind, m in report.groups["type"].items()} == {"absurd": 0, "color": 0.5, "counting": 1}
    assert value["arithmetic_mpt"] == pytest.approx(0.5)
    assert value["harmonic_mpt"] == pytest.approx(3e-10, rel=1e-6)
    assert value["arithmetic_mpt_without_absurd"] == pytest.approx(0.75)
    assert value["harmonic_mpt_without_absurd"] == pytest.approx(2 / 3)
    # Within color: red 2/3, blue 0; their mean weighs both answers alike.
    assert report.details["normalised_per_type"]["color"] == pytest.approx(1 / 3)
    assert value["normalised_arithmetic_mpt"] == pytest.approx((1 / 3 + 1) / 3)
    assert value["normalised_arithmetic_mpt_without_absurd"] == pytest.approx(2 / 3)
    assert value["normalised_harmonic_mpt_without_absurd"] == pytest.approx(0.5)
    assert (report.metric, report.headline.samples) == ("accuracy", 7)
    # "green" and "yes" are answers to nothing.
    assert report.details["out_of_vocabulary"] == 2
    assert "the means are over 3 types" in report.warnings[0]
    assert score(ANSWERS[::-1], ANNOTATIONS) == report


def test_only_the_first_annotation_counts():
    assert score(ANSWERS[:2] + said(q3="blue") + ANSWERS[3:], ANNOTATIONS).per_question["3"] == 0


def test_references_outside_the_key_are_wrong_and_one_class():
    report = score(ANSWERS, ANNOTATIONS, {"red", "doesnotapply", "yes"})
    # blue, 2 and three are outside: equal words do not help. counting holds the one class "-1".
    assert report.per_question == {"1": 1, "2": 0, "3": 1, "4": 0, "5": 0, "6": 0, "7": 0}
    assert report.details["references_outside_the_key"] == 3
    assert report.details["normalised_per_type"] == pytest.approx({"color": 1 / 3, "counting": 0, "absurd": 0})
    assert report.details["vocabulary"] == "answer key"


def test_references_score_one():
    perfect = [{"question_id": a["question_id"], "text": a["answers"][0]["answer"]} for a in ANNOTATIONS["annotations"]]
    report = score(perfect, ANNOTATIONS)
    assert {round(m.value, 8) for m in report.metrics.values()} == {1}
    assert report.details["out_of_vocabulary"] == 0


def test_intervals_hold_the_values():
    rng = np.random.default_rng(0)
    entries = [annotation(i, TYPES[i % 12], f"a{rng.integers(5)}") for i in range(2400)]
    lines = [
        {"question_id": i, "text": e["answers"][0]["answer"] if rng.random() < 0.7 else "no"}
        for i, e in enumerate(entries)
    ]
    report = score(lines, {"annotations": entries})
    assert not report.warnings
    for name, measure in report.metrics.items():
        assert 0 <= measure.low <= measure.value <= measure.high <= 1, name
        # 0.7 on 2,400 questions: a standard error of 0.0094.
        assert measure.high - measure.low == pytest.approx(4 * 0.0094, rel=0.3), name


@pytest.mark.parametrize("texts", [("x", "x", "x"), ("a", "a", "a"), ("a", "x", "a")])
def test_no_interval_where_drawing_again_moves_nothing(texts):
    kinds = ("color", "counting", "absurd")
    entries = [annotation(i, kind, "a") for i, kind in enumerate(kinds)]
    lines = [{"question_id": i, "text": text} for i, text in enumerate(texts)]
    metrics = score(lines, {"annotations": entries}).metrics
    assert sum("mpt" in name for name in metrics) == 8
    for name, measure in metrics.items():
        if name.startswith(("normalised_", "harmonic")):
            assert (measure.low, measure.high) == (None, None), name
        else:
            assert measure.high - measure.low > 0.25, name


@pytest.mark.parametrize(
    ("answers", "annotations", "words"),
    [
        (ANSWERS[1:], ANNOTATIONS, "not answered: 1"),
        (ANSWERS, {"annotations": [{"question_id": 1}]}, "not a TDIUC file"),
        (ANSWERS, {"annotations": [annotation(1, "color")]}, "not a TDIUC file"),
        (ANSWERS, {"questions": []}, "not a TDIUC file"),
    ],
)
def test_bad_input(answers, annotations, words):
    with pytest.raises(ScoringError, match=words):
        score(answers, annotations)


def test_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "ann.json").write_text(json.dumps(ANNOTATIONS))
    (tmp_path / "key.csv").write_text("red,0\ndoesnotapply,1\n2,2\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ANSWERS))
    assert read_answer_key(tmp_path / "key.csv") == {"red", "doesnotapply", "2"}
    flags = f"--annotation-file {tmp_path}/ann.json --result-file {tmp_path}/a.jsonl --answer-key {tmp_path}/key.csv"
    monkeypatch.setattr(sys, "argv", ["x", *flags.split()])
    TDIUC.score_main()
    assert "out of vocabulary: 42.86% of the replies (answer key)" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.score.json").read_text())["metrics"]["harmonic_mpt"]["samples"] == 7


def test_a_sample(tmp_path):
    MAKERS["tdiuc"](tmp_path / "raw")
    options = Options(check_counts=False, sample=3)
    prepare(tmp_path / "raw", tmp_path / "out", options)
    ids = [row["question_id"] for row in rows_of(tmp_path / "out/questions.sample-3.jsonl")]
    assert len(ids) == 3
    assert ids == sorted(ids)
    with pytest.raises(PrepareError, match="--sample 9; there are 8 questions"):
        prepare(tmp_path / "raw", tmp_path / "out", Options(check_counts=False, sample=9))
