import json

import pytest

from llava.conversation import get_template
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.questions import Question
from llava.model.builder import load_pretrained_model
from playground.embedded.report import collect, markdown, models, picture
from visual_region.commands import curve as pruning_curve


@pytest.fixture(scope="module")
def answerer(tiny, tiny_llava):
    tokenizer, model, processor, _ = load_pretrained_model(str(tiny_llava), device="cpu")
    return Answerer(model, tokenizer, processor, get_template("v1"), tiny.images, Generation(2))


def entries_of(answerer, region, scores, most, done=()):
    answerer.model.config.visual_region = {"layers": region, "num_layers": len(scores), "tune_layers": "x"}
    questions = [Question(0, "a", "What?", "0.png")]
    return list(pruning_curve.curve(answerer, questions, {"a": "no"}, scores, most, 1, list(done)))[-1]


def test_the_same_layers_are_measured_once(answerer, monkeypatch):
    depths = []

    def answers(model_of, questions, batch_size):
        depths.append(model_of.model.config.num_hidden_layers)
        return [{"question_id": "a", "text": "no"}]

    monkeypatch.setattr(pruning_curve, "_answers", answers)
    depth = answerer.model.config.num_hidden_layers
    scores = [0.3, 0.1] + [0.5] * (depth - 2)
    entries = entries_of(answerer, [0], scores, 2 if depth > 2 else 1)
    assert [(e["removed"], e["protected"]) for e in entries if e["removed"] == 0] == [(0, True)]
    assert {tuple(e["layers"]) for e in entries if e["removed"] == 1} == {(1,)}
    assert depths.count(depth - 1) == 1, "both ways remove layer 1: one measurement serves both"
    assert depths[0] == depth == answerer.model.config.num_hidden_layers


def test_one_removal_shows_its_progress_and_what_is_not_measured_again(answerer, capsys):
    scores = [0.3, 0.1] + [0.5] * (answerer.model.config.num_hidden_layers - 2)
    entries_of(answerer, [0], scores, 1)
    printed = capsys.readouterr()
    assert printed.err.count("0/1 ") == 2, "the whole model, and the one without layer 1"
    assert [line.partition(":")[0] for line in printed.out.splitlines()] == [
        "removed 0 layers",
        "removed 1 layer outside the region (1)",
        "removed 1 layer anywhere (1; the same layers as before)",
    ]


def test_a_curve_goes_on_where_it_stopped(answerer, monkeypatch):
    monkeypatch.setattr(pruning_curve, "_answers", lambda *_: [{"question_id": "a", "text": "no"}])
    scores = [0.3, 0.1] + [0.5] * (answerer.model.config.num_hidden_layers - 2)
    whole = entries_of(answerer, [0], scores, 1)
    assert entries_of(answerer, [0], scores, 1, done=whole[:1]) == whole


def test_the_report_holds_what_the_stages_wrote(tmp_path):
    score = {"all": 0.9, "shape": 1.0, "colour": 0.8, "yes_no": 0.7, "questions": 10}
    curve = [
        {"removed": n, "layers": list(range(n)), "protected": protected, "accuracy": 0.5, "scores": score}
        for n in (0, 1)
        for protected in (True, False)
        if n or protected
    ]
    (tmp_path / "lora").mkdir()
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/install").write_text("3\n")
    region = {"layers": [0, 2], "num_layers": 4, "tune_layers": "0,2"}
    (tmp_path / "lora/config.json").write_text(json.dumps({"visual_region": region}))
    (tmp_path / "healed").mkdir()
    (tmp_path / "healed/config.json").write_text(json.dumps({"visual_region": {**region, "removed_layers": [0]}}))
    healed = {"removed": 0, "scores": {**score, "all": 0.85}}
    for name, value in {
        "accuracy": score,
        "wrong_image": score,
        "curve": curve,
        "healed": [healed],
        "blind": {"sample": score, "test": score},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    report = collect(tmp_path, tmp_path / "blind.json")
    assert report["tuned_layers"] == [0, 2]
    assert report["seconds"] == {"install": 3}
    assert [(e["removed"], e["protected"]) for e in report["pruned"]] == [(1, True), (1, False)]
    assert set(report["pruned"][0]) == {"removed", "layers", "protected", "accuracy", "questions"}
    text = markdown(report)
    assert "| 1 | 0 | 50.0 | 0 | 50.0 |" in text
    rows = ("unpruned | 10 | 90.0", "without layer 0 | 10 | 90.0", "without layer 0, healed | 10 | 85.0")
    assert [row for row in rows if f"| {row} | 100.0 | 80.0 | 70.0 |" not in text] == []
    said = models(report, tmp_path).splitlines()
    assert [line.split()[1:4] for line in said[1:4]] == [
        ["4", "layers", "90.0%"],
        ["3", "layers", "90.0%"],
        ["3", "layers", "85.0%"],
    ]
    assert f"llava.serve.cli --model-path {tmp_path}/lora" in said[-1]
    picture(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
