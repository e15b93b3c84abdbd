"""What is decided before weights are loaded: the base is opened once, and no argument is changed."""

import copy
import dataclasses
import json
from collections import Counter

import pytest

from llava.checkpoint import folder, identity
from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import Kind
from llava.train.arguments import parse_arguments
from llava.train.plan import make_plan
from llava.train.train import train

LORA = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "tune_layers": "0,3", "max_steps": 1}


@pytest.mark.parametrize("base", ["language model", "LLaVA"])
def test_the_base_is_opened_once(tiny, tiny_llava, train_flags, tmp_path, monkeypatch, base):
    """Every file of its own is read once in a training start, and the trainer hands the opened base on."""
    path = tiny.llm if base == "language model" else tiny_llava
    reads, opened = Counter(), []

    def read(file):
        reads[file] += 1
        return original_read(file)

    def open_once(*args, **kwargs):
        opened.append(args[0])
        return original_open(*args, **kwargs)

    original_read, original_open = folder._read_json, folder.open_checkpoint
    monkeypatch.setattr(folder, "_read_json", read)
    for module in ("llava.train.plan", "llava.model.builder"):
        monkeypatch.setattr(f"{module}.open_checkpoint", open_once)
    train(argv=train_flags(tmp_path / "out", model_name_or_path=path, **LORA))
    assert reads == {path / "config.json": 1}
    assert opened == [str(path)]


@pytest.mark.parametrize("base", ["language model", "LLaVA"])
def test_a_plan_changes_no_argument(tiny, tiny_llava, train_flags, tmp_path, base):
    path = tiny.llm if base == "language model" else tiny_llava
    # The tower is the LLaVA's own, and v0 means another template: both are in the plan only.
    tower = {"vision_tower": None} if path == tiny_llava else {}
    flags = train_flags(tmp_path / "out", model_name_or_path=path, version="v0", **tower, **LORA)
    arguments = parse_arguments(flags)
    before = [copy.deepcopy(vars(part)) for part in arguments]
    plan = make_plan(*arguments, attn_implementation="auto")
    after = [vars(part) for part in arguments]
    # transformers' arguments hold objects that compare by identity.
    assert [list(values) for values in after] == [list(values) for values in before]
    assert after[:2] == before[:2]
    assert {name: str(value) for name, value in after[2].items() if "object at" not in str(value)} == {
        name: str(value) for name, value in before[2].items() if "object at" not in str(value)
    }
    assert plan.template_name == "vicuna_v1"
    assert plan.vision.vision_tower == str(tiny.tower)
    assert plan.kind is Kind.LORA
    assert plan.attention == "sdpa"
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.kind = Kind.FULL


def test_scores_of_another_model_are_warned_of(tiny, train_flags, tmp_path, capsys, monkeypatch):
    """They may be of a model that was trained from this one; scores of the base itself are the usual case."""
    for name, found in (("base", identity.digest(open_checkpoint(tiny.llm))), ("other", "?")):
        scores = {"model": f"/models/{name}", "identity": found, "run": "", "num_layers": 6}
        scores["metrics"] = {"bi": {"values": [0.1, 0.6, 0.2, 0.5, 0.4, 0.3]}}
        (tmp_path / f"{name}.json").write_text(json.dumps(scores))
        spec = f"{tmp_path / name}.json#bi:2"
        plan = make_plan(*parse_arguments(train_flags(tmp_path / "out", **LORA | {"tune_layers": spec})))
        assert plan.selection.layers == (1, 3)
    said = capsys.readouterr().err
    assert said.count("warning: --tune_layers:") == 1
    assert "other.json holds the scores of another model (/models/other, 6 layers) than" in said
    monkeypatch.setenv("RANK", "1")
    make_plan(*parse_arguments(train_flags(tmp_path / "out", **LORA | {"tune_layers": spec})))
    assert "warning" not in capsys.readouterr().err, "one process warns"
