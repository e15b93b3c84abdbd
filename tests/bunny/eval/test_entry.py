"""Bunny's evaluation programs are llava's, with `--model-type` checked."""

import importlib.util
import json
import runpy
import sys
from pathlib import Path

import pytest

from bunny.eval.entry import run

ROOT = Path(__file__).parents[3]
LOADER = "llava.eval.model_vqa_loader"


@pytest.fixture
def flags(make_bunny, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["model_vqa_loader"])
    questions = tmp_path / "questions.jsonl"
    rows = [{"question_id": i, "image": f"{i}.png", "text": "Where is the red line?"} for i in range(3)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**changes):
        values = {
            "model-path": make_bunny("bunny-llama"),
            "image-folder": tiny.images,
            "question-file": questions,
            "answers-file": tmp_path / "answers.jsonl",
            "max_new_tokens": 4,
            "temperature": 0,
        } | changes
        return [text for name, value in values.items() if value is not None for text in (f"--{name}", str(value))]

    return make


def test_answers_are_llavas(flags, tmp_path):
    """The answer holds the new words only, though Bunny's own loader gives callers the prompt as well."""
    run(LOADER, flags(**{"model-type": "llama3-8b", "conv-mode": "llama"}))
    first = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["question_id"] for row in first] == [0, 1, 2]
    assert not any("USER" in row["text"] for row in first)
    # Without flags the template is the family's, which is the same one here.
    run(LOADER, flags(**{"answers-file": tmp_path / "again.jsonl"}))
    second = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert [row["text"] for row in first] == [row["text"] for row in second]


def test_model_type_is_checked(flags, tiny_llava, tmp_path):
    with pytest.raises(SystemExit, match=r"--model_type phi-2 does not fit.*values that fit it: llama3-8b"):
        run(LOADER, flags(**{"model-type": "phi-2"}))
    with pytest.raises(SystemExit, match="not a Bunny"):
        run(LOADER, flags(**{"model-path": tiny_llava}))
    assert not (tmp_path / "answers.jsonl").exists()


def test_defaults_of_bunny(monkeypatch):
    """A flag that is given is kept, in either spelling."""
    seen = []
    monkeypatch.setattr("bunny.eval.entry._check", lambda *arguments: None)
    monkeypatch.setattr("llava.eval.model_vqa_mmbench.main", lambda: seen.append(sys.argv[1:]))
    needed = ["--model-path", "m", "--answers-file", "a"]
    for argv in ([], ["--max_new_tokens", "7"], ["--max_new_tokens=7"]):
        monkeypatch.setattr(sys, "argv", ["model_vqa_mmbench", *needed, *argv])
        run("llava.eval.model_vqa_mmbench", max_new_tokens="128")
    given = (["--max_new_tokens", "128"], ["--max_new_tokens", "7"], ["--max_new_tokens=7"])
    assert seen == [[*needed, *words] for words in given]


@pytest.mark.parametrize("file", sorted((ROOT / "bunny/eval").glob("[a-z]*_*.py")), ids=lambda file: file.stem)
def test_each_program_is_one_of_llavas(file, monkeypatch):
    seen = []
    monkeypatch.setattr("bunny.eval.entry.run", lambda module, **defaults: seen.append(module))
    runpy.run_path(str(file), run_name="__main__")
    assert seen == [f"llava.eval.{file.stem}"]
    assert importlib.util.find_spec(seen[0]) is not None
