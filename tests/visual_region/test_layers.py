"""The layer-list grammar: the paper's selections, any depth, and what an error says."""

import json
from itertools import pairwise

import pytest

from llava.checkpoint.record import LayerRecord
from visual_region.layers import GRAMMAR, LayerSelection, LayerSelectionError
from visual_region.strategies import ORDERS, STRATEGIES

RANDOM_8 = [4, 7, 9, 15, 18, 20, 21, 25]


def layers(spec, n=32):
    return list(LayerSelection.parse(spec, n))


def error(spec, n=32):
    with pytest.raises(LayerSelectionError) as caught:
        LayerSelection.parse(spec, n)
    return str(caught.value)


@pytest.fixture
def scores(tmp_path):
    """Writes a score file of a 4-layer model and returns its path as text."""

    def write(values, num_layers=4):
        path = tmp_path / "scores.json"
        path.write_text(json.dumps({"num_layers": num_layers, "metrics": {"bi": {"values": values}}}))
        return str(path)

    return write


# The paper's table of selections: 32 layers.
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("sparse-uniform:16", range(0, 32, 2)),
        ("sparse-uniform:8", (0, 4, 8, 12, 18, 22, 26, 30)),
        ("sparse-uniform:25%", (0, 4, 8, 12, 18, 22, 26, 30)),
        ("sparse-uniform:6", (0, 6, 12, 18, 24, 30)),
        ("sparse-uniform:4", (0, 10, 20, 30)),
        ("sparse-uniform:2", (0, 31)),
        ("sparse-uniform:1", (31,)),
        ("lower:8", range(8)),
        ("lower-middle:8", range(8, 16)),
        ("upper-middle:8", range(16, 24)),
        ("top:8", range(24, 32)),
        ("hybrid:8", (0, 1, 2, 3, 28, 29, 30, 31)),
        ("hybrid:3", (0, 1, 31)),
        ("paper:image-attention", (1, 2, 3, 4, 5, 27, 29, 31)),
        ("paper:parameter-change", (0, 2, 9, 12, 23, 24, 25, 26)),
        ("paper:block-influence", (12, 15, 18, 25, 27, 29, 30, 31)),
        ("paper:bi", (12, 15, 18, 25, 27, 29, 30, 31)),
        ("paper:multimodal-bi", (0, 1, 2, 3, 4, 5, 9, 31)),
        ("paper:angular", (0, 1, 2, 3, 5, 6, 7, 8)),
    ],
)
def test_paper_lists(spec, expected):
    assert layers(spec) == list(expected)


@pytest.mark.parametrize(
    ("spec", "n", "expected"),
    [
        ("all", 3, [0, 1, 2]),
        ("7", 32, [7]),
        ("8, 0 ,4", 32, [0, 4, 8]),
        ("0-7", 32, list(range(8))),
        ("0~7", 32, list(range(8))),
        ("5-5", 32, [5]),
        ("0:32:4", 32, list(range(0, 32, 4))),
        ("::4", 32, list(range(0, 32, 4))),
        ("16:", 18, [16, 17]),
        (":2", 32, [0, 1]),
        ("0-3,2,2~5,top:1", 32, [0, 1, 2, 3, 4, 5, 31]),
        ("sparse-uniform:25%", 30, [0, 4, 8, 12, 16, 20, 24, 28]),
        ("top:12.5%", 32, [28, 29, 30, 31]),
        ("lower:100%", 5, [0, 1, 2, 3, 4]),
        ("lower:50%", 1, [0]),
    ],
)
def test_grammar(spec, n, expected):
    assert layers(spec, n) == expected


@pytest.mark.parametrize("n", range(1, 81))
def test_strategies_give_what_was_asked_at_any_depth(n):
    for name, strategy in STRATEGIES.items():
        # The middle blocks end or start at n // 2 and need not hold more than that half.
        for k in range(1, (n // 2 if "middle" in name else n) + 1):
            chosen = list(strategy(n, k))
            assert chosen == sorted(set(chosen)), (name, k)
            assert len(chosen) == k, (name, k)
            assert 0 <= chosen[0] <= chosen[-1] < n, (name, k)
            assert layers(f"{name}:{k}", n) == chosen


@pytest.mark.parametrize("n", range(1, 81))
def test_sparse_uniform_is_sparse_and_uniform(n):
    assert layers("sparse-uniform:1", n) == [n - 1]
    assert layers(f"sparse-uniform:{n}", n) == list(range(n))
    for k in range(2, n):
        chosen = layers(f"sparse-uniform:{k}", n)
        gaps = [b - a for a, b in pairwise(chosen)]
        assert chosen[0] == 0
        assert n - chosen[-1] <= max(gaps)
        assert max(gaps) - min(gaps) <= 2


def test_an_object_that_carries_the_idea():
    selection = LayerSelection.parse("0,4-5", 8)
    assert (selection.layers, selection.num_layers, selection.spec) == ((0, 4, 5), 8, "0,4-5")
    assert selection.outside == (1, 2, 3, 6, 7)
    assert len(selection) == 3
    assert 4 in selection
    assert 1 not in selection
    assert selection.percent == 37.5
    assert selection.picture() == "■□□□■■□□"
    assert selection.as_list_spec() == "0,4,5"
    assert LayerSelection.parse(selection.as_list_spec(), 8).layers == selection.layers
    with pytest.raises(AttributeError):
        selection.num_layers = 9


def test_describe():
    text = LayerSelection.parse("sparse-uniform:8", 32).describe()
    assert text.splitlines() == [
        "8 of 32 layers (25%): 0,4,8,12,18,22,26,30",
        "■□□□■□□□■□□□■□□□□□■□□□■□□□■□□□■□",
    ]


def test_dict_round_trip_through_json():
    selection = LayerSelection.parse("top:25%", 30)
    data = json.loads(json.dumps(selection.record.values))
    assert data == {"tune_layers": "top:25%", "layers": list(range(22, 30)), "num_layers": 30}
    assert LayerSelection.of_record(LayerRecord(data, 30)) == selection


def test_recorded_layers_outlive_their_score_file():
    data = {"tune_layers": "gone.json#bi:1", "layers": [3], "num_layers": 4}
    assert LayerSelection.of_record(LayerRecord(data, 4)).layers == (3,)


@pytest.mark.parametrize("wrong", [[], [1, 0], [0, 0], [0, 4], [-1, 0]])
def test_a_record_of_layers_that_cannot_be_is_refused(wrong):
    with pytest.raises(LayerSelectionError):
        LayerSelection.of_record(LayerRecord({"tune_layers": "all", "layers": wrong, "num_layers": 4}, 4))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", ["layers are 0..31 of a 32-layer model"]),
        ("  ", ["layers are 0..31 of a 32-layer model"]),
        ("0,,4", ["empty"]),
        ("0,4,", ["empty"]),
        ("-1", ["-1", "31", "layers are 0..31 of a 32-layer model"]),
        ("32", ["layers are 0..31 of a 32-layer model", "the last is 31"]),
        ("40", ["40", "layers are 0..31 of a 32-layer model"]),
        ("24-32", ["32", "layers are 0..31 of a 32-layer model"]),
        ("7-0", ["0-7"]),
        ("0..7", ["0-7"]),
        ("sparse:8", ["sparse-uniform"]),
        ("uniform-sparse:8", ["sparse-uniform", "hybrid"]),
        ("hybird:8", ["hybrid"]),
        ("four", ["'four'", "sparse-uniform"]),
        ("4.5", ["'4.5'"]),
        ("top:0", ["top:0"]),
        ("top:33", ["33", "32"]),
        ("top:x", ["top:x"]),
        ("top", ["top"]),
        ("top:1%", ["no layer"]),
        ("top:101%", ["more than"]),
        ("0:64:4", ["64"]),
        ("0:32:0", ["0:32:0"]),
        ("8:8", ["8:8"]),
        ("paper:angle", ["paper:angular"]),
        ("paper:nothing-like-it", ["multimodal-bi"]),
    ],
)
def test_errors_name_the_part_and_what_was_meant(spec, says):
    message = error(spec)
    for text in says:
        assert text in message


def test_all_errors_of_a_spec_come_at_once():
    message = error("0,40,tpo:8,7-3,5,paper:none")
    for text in ("40", "tpo:8", "3-7", "paper:none", "top"):
        assert text in message


def test_paper_lists_are_for_32_layers():
    message = error("paper:bi", 30)
    assert "32" in message


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        *[("bi:2", [1, 3]), ("bi:50%", [1, 3]), ("bi:lowest:1", [0]), ("bi:lowest:2", [0, 2]), ("bi:4", [0, 1, 2, 3])],
        *[("bi:highest:2", [1, 3]), ("bi:spread:2", [1, 3]), ("bi:spread:3", [0, 1, 3]), ("bi:spread:1", [3])],
    ],
)
def test_score_file(scores, query, expected):
    path = scores([0.1, 0.9, 0.3, 1])
    assert layers(f"{path}#{query}", 4) == expected
    assert layers(f"0,{path}#{query}", 4) == sorted({0, *expected})


def test_equal_scores_take_the_lower_layer(scores):
    path = scores([1.0, 1.0, 1.0, 1.0])
    assert layers(f"{path}#bi:2", 4) == layers(f"{path}#bi:lowest:2", 4) == [0, 1]
    assert layers(f"{path}#bi:spread:2", 4) == [0, 2]


@pytest.mark.parametrize(("n", "k"), [(32, 8), (30, 8), (7, 3), (4, 4)])
def test_spread_takes_one_layer_of_each_segment(scores, n, k):
    """One layer of each segment, and among them the highest of all."""
    values = [(31 * layer) % n / n for layer in range(n)]
    chosen = layers(f"{scores(values, n)}#bi:spread:{k}", n)
    assert values.index(max(values)) in chosen
    assert [sum(n * i // k <= layer < n * (i + 1) // k for layer in chosen) for i in range(k)] == [1] * k


def test_random_layers_are_fixed_by_the_seed():
    # Written down once: a spec in a paper or a plan must mean the same layers for ever.
    assert layers("random:8@0") == RANDOM_8
    assert layers("random:25%@0") == layers("random: 8 @ 0") == RANDOM_8
    assert set(RANDOM_8) < set(layers("random:16@0"))
    drawn = [layers(f"random:8@{seed}") for seed in range(400)]
    counts = [sum(layer in selection for selection in drawn) for layer in range(32)]
    # 400 draws of a quarter: 100 each, with a standard deviation of 8.7.
    assert min(counts) > 65
    assert max(counts) < 135
    assert len({tuple(selection) for selection in drawn}) > 390


@pytest.mark.parametrize("spec", ["random:8", "random", "random:8@", "random:8@x", "random:8@-1", "random:8@1.5"])
def test_random_layers_need_a_seed(spec):
    assert "did you mean 'random:8@0'" in error(spec)


def test_random_layers_need_a_count():
    assert "33 of 32" in error("random:33@0")
    assert "did you mean 'random:8@0'" in error("randm:8")


def test_an_unknown_order_names_the_known_ones(scores):
    message = error(f"{scores([1, 2, 3, 4])}#bi:sprad:2", 4)
    assert "highest or lowest or spread" in message
    assert "#bi:spread:2" in message


@pytest.mark.parametrize(
    ("values", "num_layers", "query", "says"),
    [
        ([1, 2, 3, 4], 5, "bi:1", "5"),
        ([1, 2, 3], 4, "bi:1", "4"),
        ([1, 2, 3, float("nan")], 4, "bi:1", "finite"),
        ([1, 2, 3, None], 4, "bi:1", "finite"),
        ([1, 2, 3, 4], 4, "angular:1", "bi"),
        ([1, 2, 3, 4], 4, "bi:5", "5"),
        ([1, 2, 3, 4], 4, "bi", "#"),
    ],
)
def test_score_file_errors(scores, values, num_layers, query, says):
    path = scores(values, num_layers)
    assert says in error(f"{path}#{query}", 4).replace(path, "")


@pytest.mark.parametrize("text", [None, "not json", "[]", "{}"])
def test_unusable_score_file(tmp_path, text):
    path = tmp_path / "scores.json"
    if text is not None:
        path.write_text(text)
    assert "scores.json" in error(f"{path}#bi:1", 4)


def test_grammar_text_lists_every_strategy_and_order():
    for name in (*STRATEGIES, "random:8@0"):
        assert name in GRAMMAR
    for order in ORDERS:
        # The highest are taken if no order is given.
        use = "'scores.json#bi:8' (highest)" if order == "highest" else f"'scores.json#bi:{order}:8'"
        assert use in GRAMMAR
