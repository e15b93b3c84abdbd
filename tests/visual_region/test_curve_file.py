"""curve.json: what is written is read, also in the form of earlier versions."""

import json

import pytest

from llava.eval.scoring.report import Measure, Report
from visual_region.curve_file import ANYWHERE, CURVE, OUTSIDE, WAYS, CheckpointCurve, Curve, Order, Point, read_curve
from visual_region.scores import ScoreError


def report(value, **changes):
    metrics = {"accuracy": Measure(value, value / 2, 1.0, 2)}
    return Report("gqa", "accuracy", metrics, 2, 1, {"a": 0.0, "b": 1.0}, extra={"all": value}, **changes)


def test_what_is_written_is_read(tmp_path):
    points = [
        Point(0, (), WAYS, {"gqa": report(0.5), "bbh": report(0.25, warnings=["a subset"])}),
        Point(1, (2,), (OUTSIDE,), {"gqa": report(0.4, details={"rule": "x"})}),
        Point(1, (1,), (ANYWHERE,)),
    ]
    checkpoint = CheckpointCurve("a/b", "digest", 4, (1, 3), (0, 1, 2, 5), Order("bi", (1, 2, 0, 3)), points)
    curve = Curve("fp32", None, {"gqa": {"files": {"q.jsonl": "x"}}, "bbh": {}}, [checkpoint, CheckpointCurve("c")])
    curve.write(tmp_path / "curve.json")
    assert read_curve(tmp_path / "curve.json") == curve
    assert read_curve(tmp_path / "curve.json").checkpoints[0].points[0].reports["gqa"].extra == {"all": 0.5}
    assert CURVE.recognises(tmp_path / "curve.json")
    assert [point.layers for point in checkpoint.line(OUTSIDE)] == [(), (2,)]
    assert [point.layers for point in checkpoint.line(ANYWHERE)] == [(), (1,)]


@pytest.mark.parametrize("region", [(), (0, 1, 2)])
def test_a_region_that_protects_nothing_has_one_line(region):
    """`--where outside` and `--where anywhere` measure the same points."""
    for way, other in (WAYS, WAYS[::-1]):
        points = [Point(1, (2,), (way,)), Point(0, (), (way,))]
        curve = CheckpointCurve(num_layers=3, region=region, points=points)
        assert curve.line(way) == curve.line(other) == points[::-1]


def test_a_list_of_an_earlier_version(tmp_path):
    scores = {"all": 0.9, "questions": 10, "intervals": {"all": [0.8, 1.0]}}
    entries = [
        {"removed": 0, "layers": [], "protected": True, "accuracy": 0.9, "scores": scores},
        {"removed": 1, "layers": [4], "protected": True, "accuracy": 0.8, "scores": {**scores, "all": 0.8}},
        {"removed": 1, "layers": [4], "protected": False, "accuracy": 0.8, "scores": {**scores, "all": 0.8}},
        {"removed": 2, "layers": [2, 4], "protected": False, "accuracy": 0.1},
    ]
    path = tmp_path / "curve.json"
    path.write_text(json.dumps(entries))
    assert CURVE.recognises(path)
    (checkpoint,) = read_curve(path).checkpoints
    assert [(point.removed, point.layers, point.ways) for point in checkpoint.points] == [
        (0, (), WAYS),
        (1, (4,), WAYS),
        (2, (2, 4), (ANYWHERE,)),
    ]
    whole, _, last = (point.reports["easy_vqa"] for point in checkpoint.points)
    assert (whole.headline, whole.extra) == (Measure(0.9, 0.8, 1.0, 10), scores)
    assert last.headline == Measure(0.1, None, None, 0)
    assert checkpoint.identity == ""


@pytest.mark.parametrize(
    "content", ["[]", "{}", "no JSON", '[{"removed": 0}]', '{"checkpoints": 3}', '{"metrics": {}}']
)
def test_another_file_is_named(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ScoreError, match=r"x\.json is not a curve of `python -m visual_region curve`"):
        read_curve(tmp_path / "x.json")
