"""The page for choosing layers shows what `select` and `plan` print; wrong fields are messages."""

import json

import pytest

from visual_region.page.choosing import Choice, Training, choose, first_specs, kept_metric, metrics_of

VALUES = [0.9, 0.1, 0.2, 0.8, 0.3, 0.4]


@pytest.fixture
def scores(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"num_layers": 6, "metrics": {"bi": {"values": VALUES}, "mine": {"values": VALUES}}}))
    return str(path)


def training(model="", **changes):
    return Training(**{"model": str(model), "mode": "lora", "lora_r": 4, "samples": 100, "text_tokens": 20} | changes)


def test_selections_of_a_score_file(scores, tiny_llava):
    found = choose(f" {scores} ", "mine", None, "#bi:2\n\nsparse-uniform:2, 5\n#bi:lowest:1,0", training(tiny_llava))
    assert found.message == ""
    assert found.flags == "--tune_layers 0,3\n--tune_layers 0,5\n--tune_layers 0,1"
    assert "| bi:2 | 2 (33.3%) | 0,3 | 1.00 |" in found.table
    assert "| sparse-uniform:2,5 | 2 (33.3%) | 0,5 | 0.33 |" in found.table
    assert found.picture.width > 300


def test_cost_is_that_of_plan(command, scores, tiny_llava, tmp_path):
    found = choose(scores, "bi", None, "0,3", training(tiny_llava))
    output = tmp_path / "plan.json"
    command(
        "plan", "--model-path", tiny_llava, "--tune-layers", "all", "--tune-layers", "0,3", "--lora-r", 4,
        "--text-tokens", 20, "--samples", 100, "--output", output,
    )  # fmt: skip
    everything, chosen = (row["parameters"]["trained"] for row in json.loads(output.read_text())["selections"])
    assert f"| trained parameters | {everything:,} | {chosen:,} |" in found.cost
    assert "| against the first | 1.000 |" in found.cost.replace("  against", "against")


def test_without_a_score_file_the_depth_is_a_field():
    found = choose("", None, 32, "sparse-uniform:8", training())
    assert found.flags == "--tune_layers 0,4,8,12,18,22,26,30"
    assert found.cost.startswith("For the cost, name a model")
    assert first_specs(None) == "sparse-uniform:25%"
    assert choose("", None, 32, first_specs(None), training()).message == ""


def test_a_chosen_metric_stays_if_the_file_has_it():
    assert kept_metric(["bi", "mine"], "mine") == "mine"
    assert kept_metric(["bi", "angular"], "mine") == kept_metric(["bi", "angular"], None) == "bi"
    assert kept_metric([], "mine") is None


def test_what_the_page_starts_with_works(scores):
    choices, said = metrics_of(scores)
    assert choices == [("block influence (bi)", "bi"), ("mine", "mine")]
    assert said == ""
    assert choose(scores, None, None, first_specs("bi"), training()).message == ""


@pytest.mark.parametrize(
    ("layers", "specs", "words"),
    [
        (6, "", "at least one selection"),
        (None, "0,3", "give a score file, or the number of layers"),
        (-3, "0", "from 1 to 1000"),
        (10**9, "all", "from 1 to 1000"),
        (6, "#bi:2", "name one"),
        (6, "0,9", "no layer 9"),
        (6, "sparse_uniform:2", "did you mean 'sparse-uniform:2'"),
        (6, "nowhere.json#bi:2", "nowhere.json is not a score file"),
        (6, "\n".join("012345" * 3), "at most 12"),
    ],
)
def test_wrong_fields_are_messages(layers, specs, words):
    found = choose("", None, layers, specs, training())
    assert words in found.message
    assert found == Choice(message=found.message)


VALUES_OF_TWO = '"num_layers": 2, "metrics": {"bi": {"values"'
CONTENTS = [
    *("", "[]", "{}", '{"num_layers": 2, "metrics": {}}', "not json"),
    *(f"{{{VALUES_OF_TWO}: [{wrong}, 1]}}}}}}" for wrong in ("null", "NaN", '"x"', "true")),
]


@pytest.mark.parametrize("content", CONTENTS)
def test_wrong_score_files_are_messages(tmp_path, content):
    path = tmp_path / "s.json"
    path.write_text(content)
    assert choose(str(path), "bi", None, "#bi:1", training()).message.startswith("**Error:**")
    assert choose(str(path), "bi", None, "0", training()).message.startswith("**Error:**")


def test_a_missing_score_file_has_no_metrics(tmp_path):
    assert metrics_of(" ") == ([], "")
    choices, said = metrics_of(str(tmp_path / "none.json"))
    assert choices == []
    assert "is not a score file" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "nowhere"}, "nowhere"),
        ({"lora_r": None}, "lora r is empty"),
        ({"samples": 0}, "--samples 0 must be above 0"),
        ({"text_tokens": -1, "lora_r": 0}, "--lora-r 0 must be above 0"),
    ],
)
def test_a_wrong_cost_leaves_the_selections(tiny_llava, changes, words):
    found = choose("", None, 6, "0,3", training(**{"model": tiny_llava} | changes))
    assert found.flags == "--tune_layers 0,3"
    assert found.cost.startswith("**Error:** the cost is not known")
    assert words in found.cost


def test_a_model_of_another_depth_has_no_cost(tiny_llava):
    found = choose("", None, 4, "0,3", training(tiny_llava))
    assert "has 6 layers, the selections are of 4" in found.cost
