"""Every scorer on every other benchmark's annotations: one clear line, never a traceback, never a score."""

import json
import runpy
import sys
import warnings

import pytest

from llava.eval.benchmarks import BY_NAME
from llava.eval.benchmarks.preparing import Options
from tests.conftest import REPOSITORY
from tests.made_benchmarks import MAKERS

ANNOTATIONS = {
    "bbh": "annotations.json",
    "docvqa": "val_v1.0_withQT.json",
    "gqa": "data/testdev_balanced_questions.json",
    "mmbench": "mmbench_dev_20230712.tsv",
    "mmlu": "annotations.json",
    "ocrvqa": "dataset.json",
    "refcocog": "annotations.json",
    "scienceqa": "problems.json",
    "tdiuc": "mscoco_val2014_annotations.json",
    "textvqa": "TextVQA_0.5.1_val.json",
}
SCORERS = {name: name for name in ANNOTATIONS} | {"scienceqa": "science_qa"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Every benchmark's folder, and answers that would do for any."""
    root = tmp_path_factory.mktemp("data")
    for name, make in MAKERS.items():
        make(root / "raw" / name)
        BY_NAME[name].prepare(root / "raw" / name, root / name, Options(check_counts=False))
    BY_NAME["bbh"].prepare(REPOSITORY / "tests/data/bbh", root / "bbh", Options(check_counts=False))
    (root / "mmlu").mkdir()
    truth = {"answer": "A", "choices": ["a", "b", "c", "d"]}
    (root / "mmlu/annotations.json").write_text(json.dumps({"anatomy/0": truth}))
    for name, content in (("list", [1]), ("object", {"1": {"x": 1}}), ("number", 3), ("data", {"data": [1]})):
        (root / f"{name}.json").write_text(json.dumps(content))
    line = {"question_id": "1", "prompt": "Which?\nAnswer.", "text": "A"}
    (root / "answers.jsonl").write_text(json.dumps(line) + "\n")
    return root


@pytest.mark.parametrize("scorer", SCORERS)
def test_one_line_for_a_file_of_another_kind(scorer, data, tmp_path, monkeypatch):
    files = [data / name / file for name, file in ANNOTATIONS.items() if name != scorer]
    files += [data / f"{name}.json" for name in ("list", "object", "number", "data")]
    for file in files:
        flags = ["--annotation-file", file]
        if scorer == "scienceqa":
            flags = ["--base-dir", tmp_path]
            (tmp_path / "problems.json").unlink(missing_ok=True)
            (tmp_path / "problems.json").symlink_to(file)
            (tmp_path / "pid_splits.json").write_text(json.dumps({"test": ["1"]}))
        if scorer == "refcocog":
            flags += ["--frame", "padded"]
        words = ["x", *flags, "--result-file", data / "answers.jsonl", "--report-file", tmp_path / "score.json"]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            with pytest.raises(SystemExit) as caught:
                runpy.run_module(f"llava.eval.eval_{SCORERS[scorer]}", run_name="__main__")
        assert str(caught.value).startswith("error: "), (file, caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "score.json").exists()
