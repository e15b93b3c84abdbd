"""How the harnesses find our model classes, and what is said without a harness. Needs neither of them."""

import importlib.util
import re
import sys
from types import ModuleType

import pytest

from llava.eval import harness
from tests.conftest import REPOSITORY


def test_without_lm_eval_one_line_says_what_to_install(monkeypatch, program):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else find(name))
    with pytest.raises(SystemExit, match=r"^error: this needs the package lm-eval: pip install .* -e '\.\[harness\]'$"):
        program("llava.eval.harness", "run", "--model", "llava_vr")


def test_the_entry_points_name_what_exists(monkeypatch):
    """Read as text: the modules import their harness."""
    setup = (REPOSITORY / "setup.py").read_text()
    model = re.search(r'"lm_eval\.models": \["llava_vr = ([\w.]+):(\w+)"\]', setup)
    source = REPOSITORY / f"{model[1].replace('.', '/')}.py"
    assert f"@register_model(NAME)\nclass {model[2]}(" in source.read_text()
    assert re.search(r'"lmms_eval\.models": \["llava_vr = llava\.eval\.harness:manifest"\]', setup)
    registry = ModuleType("lmms_eval.models.registry_v2")
    registry.ModelManifest = lambda **fields: fields
    monkeypatch.setitem(sys.modules, registry.__name__, registry)
    named = harness.manifest()
    module, _, name = named["simple_class_path"].rpartition(".")
    assert named["model_id"] == "llava_vr"
    assert f"class {name}(" in (REPOSITORY / f"{module.replace('.', '/')}.py").read_text()
