import json

import pytest

from llava.eval.scoring.report import Measure, Report, group, read_report, report_path
from llava.eval.scoring.statistics import wilson


@pytest.fixture
def report():
    return Report(
        benchmark="toy",
        metric="accuracy",
        metrics={"accuracy": Measure.of([1, 0, 1, 1]), "soft": Measure.of([0.3, 1.0, 0.6, 0.9])},
        answers=4,
        parse_failures=1,
        per_question={"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0},
        groups={"kind": group(["x", "y", "x", "y"], [1, 0, 1, 1])},
        warnings=["a subset"],
        model="m",
    )


def test_shape(report, tmp_path):
    path = tmp_path / "r.json"
    report.write(path)
    data = json.loads(path.read_text())
    assert (data["benchmark"], data["metric"], data["value"], data["samples"]) == ("toy", "accuracy", 0.75, 4)
    assert (data["low"], data["high"]) == pytest.approx(wilson(3, 4))
    assert (data["parse_failures"], data["parse_failure_rate"]) == (1, 0.25)
    assert data["groups"]["kind"]["x"]["value"] == 1
    assert data["metrics"]["soft"]["value"] == pytest.approx(0.7)
    assert read_report(path) == report


def test_table(report):
    text = report.table()
    assert "4 answers, 1 unreadable or empty (25.00%)" in text
    assert "warning: a subset" in text
    assert "* accuracy" in text
    assert "75.00%" in text
    assert "kind: y" in text


def test_where_it_goes():
    assert str(report_path(None, "d/a.jsonl")) == "d/a.score.json"
    assert str(report_path("r.json", "d/a.jsonl")) == "r.json"


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="not a score"):
        read_report(path)


def test_the_headline_is_one_of_the_metrics():
    with pytest.raises(ValueError, match="not among the metrics"):
        Report("b", "x", {"y": Measure.of([1])}, 1, 0)


def test_no_interval(tmp_path):
    """Of scores between 0 and 1 that are all the same, as of a single question."""
    measure = Measure.of([0.3])
    assert (measure.value, measure.low, measure.high) == (0.3, None, None)
    assert Measure.of([0.3, 0.4]).low is not None
    report = Report("b", "x", {"x": measure}, 1, 0, {"q": 0.3})
    assert "30.00%  (no interval)  of 1" in report.table()
    report.write(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["low"] is None
    assert read_report(tmp_path / "r.json") == report


def test_parts(report, tmp_path):
    report.parts = {"first": ["a", "b"], "second": ["c"], "odd": ["a", "z"]}
    report.write(tmp_path / "r.json")
    again = read_report(tmp_path / "r.json")
    assert again.scores_of("first") == {"a": 1.0, "b": 0.0}
    with pytest.raises(ValueError, match="toy has no part 'third'; it has first, second, odd"):
        again.scores_of("third")
    with pytest.raises(ValueError, match="no score for z of its part odd"):
        again.scores_of("odd")


def test_older_files_have_no_parts(report, tmp_path):
    path = tmp_path / "r.json"
    report.write(path)
    older = json.loads(path.read_text())
    del older["parts"]
    path.write_text(json.dumps(older))
    assert read_report(path) == report
    with pytest.raises(ValueError, match="it has no parts"):
        read_report(path).scores_of("first")
