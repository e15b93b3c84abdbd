"""What the pictures show: whole numbers of samples, marks at both ends, a panel for each file."""

import json
import re

import pytest
from matplotlib import pyplot

from llava.eval.scoring.report import Measure, Report
from tests.conftest import REPOSITORY
from visual_region.curve_file import OUTSIDE, WAYS, CheckpointCurve, Point, curve_of_entries
from visual_region.importance import METRICS
from visual_region.layers import LayerSelection
from visual_region.pictures import bars, curves, figure, heatmap, stacks
from visual_region.scores import ScoreFile

LAYERS = 6
ENTRIES = [
    {"removed": n, "protected": p, "accuracy": a}
    for n, p, a in ((0, True, 1.0), (1, True, 0.0), (1, False, 0.0), (2, True, 0.5))
]
(CURVE,) = curve_of_entries(ENTRIES).checkpoints


@pytest.fixture
def drawn(monkeypatch):
    """The figures, kept open to be looked into."""
    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    yield figures
    monkeypatch.undo()
    pyplot.close("all")


def score_file(tmp_path, samples, name="s.json"):
    rows = [[0.1 * (i + j) for j in range(LAYERS)] for i in range(samples)]
    entry = {"values": rows[0], "per_sample": rows, "weights": [1.0] * samples, "samples": samples}
    (tmp_path / name).write_text(json.dumps({"num_layers": LAYERS, "metrics": {"image-attention": entry}}))
    return ScoreFile.read(tmp_path / name)


@pytest.mark.parametrize("samples", [1, 2, 3, 200])
def test_samples_are_counted_in_whole_numbers(drawn, tmp_path, samples):
    heatmap.draw_heatmap([score_file(tmp_path, samples)], "image-attention", tmp_path / "h.png")
    axis = drawn[0].axes[0]
    low, high = sorted(axis.get_ylim())
    ticks = [tick for tick in axis.get_yticks() if low <= tick <= high]
    assert ticks
    assert all(tick == int(tick) for tick in ticks)
    assert axis.get_title() == f"s, {samples} sample" + "s" * (samples > 1)


def test_marks_at_both_ends_are_whole(drawn, tmp_path):
    curves.draw_curves([("one", CURVE)], tmp_path / "c.png")
    axis = drawn[0].axes[0]
    marker = max(line.get_markersize() for line in axis.lines) / 72 * drawn[0].dpi / 2
    bottom, top = axis.bbox.y0, axis.bbox.y1
    for line in axis.lines:
        places = axis.transData.transform(line.get_xydata())[:, 1]
        assert places.min() - marker >= bottom
        assert places.max() + marker <= top


def test_both_of_two_equal_lines_can_be_seen(drawn, tmp_path):
    """The upper one is thinner, with gaps, and its marks are rings around those of the lower one."""
    curves.draw_curves([("one", CURVE)], tmp_path / "c.png")
    lower, upper = drawn[0].axes[0].lines
    assert upper.get_zorder() >= lower.get_zorder()
    assert upper.is_dashed()
    assert not lower.is_dashed()
    assert upper.get_linewidth() < lower.get_linewidth()
    assert upper.get_markersize() > lower.get_markersize()
    assert upper.get_markerfacecolor() == "none"


def test_bars_begin_at_0_and_have_a_unit(drawn, tmp_path):
    bars.draw_bars(score_file(tmp_path, 3), [1], tmp_path / "b.png")
    axis = drawn[0].axes[0]
    assert axis.get_ylim()[0] == 0
    assert axis.get_ylabel() == "attention per image token"
    assert {figure.unit_of(name) for name in METRICS} >= {"1 - cosine", "angle / π", "change / value"}
    assert "" not in {figure.unit_of(name) for name in (*METRICS, "bi-text", "angular-last", "image-attention-prompt")}
    assert figure.unit_of("my-own") == ""


def test_one_palette():
    """Colours are written down in one file."""
    for folder in ("llava", "visual_region", "playground"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            if path.name != "palette.py":
                text = path.read_text()
                found = re.findall(r"""["']#[0-9a-fA-F]{6}["']|color=["'](?!none|white)|["']C\d|["']C\{""", text)
                assert not found, (path, found)


def test_a_file_given_twice_keeps_both_lines(drawn, tmp_path):
    curves.draw_curves([("a", CURVE), ("a", CURVE), ("b", CURVE)], tmp_path / "c.png")
    (axis,) = drawn[0].axes
    assert axis.get_title() == "easy-VQA"
    ways = ("outside the tuned region", "anywhere")
    expected = [f"{name}, {way}" for name in ("a (1)", "a (2)", "b") for way in ways]
    assert [line.get_label() for line in axis.lines] == expected
    files = [score_file(tmp_path, 3)] * 2
    heatmap.draw_heatmap(files, "image-attention", tmp_path / "h.png", ["x", "x"])
    assert [axis.get_title() for axis in drawn[1].axes[:2]] == ["x (1), 3 samples", "x (2), 3 samples"]


def test_score_files_of_one_name_stay_apart(drawn, tmp_path):
    specs = ["one/run/scores.json#bi:2", "two/run/scores.json#bi:2", "other.json#bi:2", "sparse-uniform:2"]
    selections = [LayerSelection((0, 3), LAYERS, spec) for spec in specs]
    stacks.draw_stacks(selections, tmp_path / "s.png")
    labels = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert labels == specs


def test_labels_that_end_alike_are_not_cut():
    long = "x" * 50
    assert figure.shortened([f"a{long}", f"b{long}"]) == [f"a{long}", f"b{long}"]
    assert figure.shortened([f"a{long}", "b"]) == [f"…{long[:39]}", "b"]


def test_a_panel_per_benchmark_and_a_colour_per_checkpoint(drawn, tmp_path):
    """Intervals of several lines are apart; perplexity is on a logarithmic scale; one legend for all panels."""

    def report(name, value, unit="share"):
        return Report(name, "score", {"score": Measure(value, 0.9 * value, 1.1 * value, 9)}, 9, 0, unit=unit)

    def checkpoint(region):
        points = [
            Point(n, tuple(range(n)), ways, {
                "gqa": report("gqa", 0.5 - n / 10), "textvqa": report("textvqa", 0.3),
                "perplexity": report("perplexity", 10.0**n, "perplexity"),
            })
            for n, ways in ((0, WAYS), (1, WAYS), (2, WAYS if len(region) == LAYERS else (OUTSIDE,)))
        ]  # fmt: skip
        return CheckpointCurve("x", "x", LAYERS, region, points=points)

    both = [("region", checkpoint((0, 3))), ("full", checkpoint(tuple(range(LAYERS))))]
    curves.draw_curves(both, tmp_path / "c.png")
    panels = [axis for axis in drawn[0].axes if axis.axison]
    assert [axis.get_title() for axis in panels] == ["GQA", "TextVQA", "perplexity"]
    assert [axis.get_yscale() for axis in panels] == ["linear", "linear", "log"]
    for axis in panels:
        labels = [line.get_label() for line in axis.lines]
        assert labels == ["region, outside the tuned region", "region, anywhere", "full"]
        first, second, third = (line.get_xdata() for line in axis.lines)
        assert len({float(x[0]) for x in (first, second, third)}) == 3
        assert len({line.get_color() for line in axis.lines}) == 2
        assert len({line.get_marker() for line in axis.lines}) == 2
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == labels
