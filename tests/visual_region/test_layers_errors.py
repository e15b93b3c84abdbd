"""What the brief asks beyond test_layers.py."""

import re

import pytest

from llava.checkpoint.record import LayerRecord
from visual_region.layers import LayerSelection, LayerSelectionError


def error(spec, n=32):
    with pytest.raises(LayerSelectionError) as caught:
        LayerSelection.parse(spec, n)
    return str(caught.value)


def test_ten_of_forty_is_the_plain_stride():
    assert LayerSelection.parse("sparse-uniform:10", 40).layers == tuple(range(0, 40, 4))


@pytest.mark.parametrize("spec", ["0 - 7", "0 : 8", "lower : 8", "lower: 8", "lower:25 %"])
def test_whitespace(spec):
    assert LayerSelection.parse(spec, 32).layers == tuple(range(8))


@pytest.mark.parametrize("spec", ["lower-middle:17", "upper-middle:17"])
def test_a_middle_block_that_does_not_fit(spec):
    assert "16" in error(spec)


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("-1", "31"), ("32", "31"), ("-8--1", "24-31"), ("24-32", "24-31"), ("-8:", "24:32"), (":-1", "0:31"),
        ("8:4", "4:8"), ("0:64:4", "0:32:4"), ("0 4 8", "0,4,8"), ("0–7", "0-7"), ("0,,4", "0,4"), ("top", "top:25%"),
        ("sparse_uniform=8", "sparse-uniform:8"), ("ALL", "all"), ("bi:8", "paper:bi"), ("x.json:bi:8", "x.json#bi:8"),
        ("top:0.25", "25%"),
    ],
)  # fmt: skip
def test_suggestions(spec, meant):
    assert re.search(rf"did you mean '{re.escape(meant)}'", error(spec))


@pytest.mark.parametrize(
    "spec", ["9" * 5000, "9" * 12, "-", ":::", "#", "a#", "#bi:8", "a#b", "~x/y#bi:1", "\0#bi:1", "٣"]
)
def test_odd_text_is_a_selection_error(spec):
    error(spec)


@pytest.mark.parametrize("spec", [None, 4, ["0"]])
def test_not_text(spec):
    error(spec)


@pytest.mark.parametrize("num_layers", [0, -1, True, None, "32"])
def test_depth(num_layers):
    error("all", num_layers)


@pytest.mark.parametrize(
    "data",
    [
        None, [], {}, {"layers": [0], "num_layers": 4}, {"tune_layers": "0", "layers": "0", "num_layers": 4},
        {"tune_layers": "0", "layers": [True], "num_layers": 4}, {"tune_layers": "0", "layers": [0.0], "num_layers": 4},
        {"tune_layers": None, "layers": [0], "num_layers": 4}, {"tune_layers": "0", "layers": [0], "num_layers": "4"},
    ],
)  # fmt: skip
def test_a_damaged_record_is_refused(data):
    with pytest.raises(LayerSelectionError):
        LayerSelection.of_record(LayerRecord.of({"visual_region": data}))
