import json
import sys

import pytest

from llava.eval.benchmarks.docvqa import DOCVQA, score
from llava.eval.scoring.pairing import ScoringError


def entry(number, answers, kinds=("layout",), **more):
    return {"questionId": number, "answers": answers, "data_split": "val", "question_types": list(kinds)} | more


ANNOTATIONS = {
    "dataset_name": "made",
    "data": [
        entry(10, ["May 5", "may 5th"]),
        entry(11, ["12%"], ("table/list", "handwritten")),
        entry(12, ["acme ltd"]),
        entry(13, ["abc"]),
    ],
}
ANSWERS = [
    {"question_id": 10, "text": "May 5TH"},
    {"question_id": 11, "text": "0.12"},
    {"question_id": 12, "text": "acne ltd"},
    {"question_id": 13, "text": "abd   "},
]


def test_by_hand():
    report = score(ANSWERS, ANNOTATIONS)
    assert report.metric == "anls"
    assert report.per_question == pytest.approx({"10": 1, "11": 0, "12": 7 / 8, "13": 5 / 6})
    assert report.metrics["relaxed"].value == 0.5
    assert report.metrics["exact"].value == 0.25
    assert "not published" in report.details["paper"]
    # 1, then "0.12" against "12%": 2 of 4 letters wrong at least, below one half; 7/8; one edit over 6 raw letters.
    assert report.metrics["anls"].value == pytest.approx((1 + 0 + 7 / 8 + 5 / 6) / 4)
    assert {kind: (m.value, m.samples) for kind, m in report.groups["question type"].items()} == {
        "handwritten": (0, 1),
        "layout": (pytest.approx((1 + 7 / 8 + 5 / 6) / 3), 3),
        "table/list": (0, 1),
    }
    assert score(ANSWERS[::-1], ANNOTATIONS) == report


def test_any_reference_scores_one_by_every_rule():
    for take in (0, -1):
        perfect = [{"question_id": e["questionId"], "text": e["answers"][take]} for e in ANNOTATIONS["data"]]
        assert {m.value for m in score(perfect, ANNOTATIONS).metrics.values()} == {1}


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"data": [entry(1, ["x"], data_split="test")]}, "are of split test, not val"),
        ({"data": [entry(1, [])]}, "1 annotation has no answers"),
        ({"questions": []}, "not a DocVQA file"),
        ([], "not a DocVQA file"),
    ],
)
def test_bad_annotations(annotations, words):
    with pytest.raises(ScoringError, match=words):
        score([{"question_id": 1, "text": "x"}], annotations)


def test_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "val.json").write_text(json.dumps(ANNOTATIONS))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ANSWERS))
    flags = f"--annotation-file {tmp_path}/val.json --result-file {tmp_path}/a.jsonl --report-file {tmp_path}/r.json"
    monkeypatch.setattr(sys, "argv", ["x", *flags.split()])
    DOCVQA.score_main()
    assert "anls" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["metric"] == "anls"
