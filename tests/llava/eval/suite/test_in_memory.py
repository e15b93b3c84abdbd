"""A benchmark on a model in memory has the score of the programs that scripts/eval runs."""

import json
import os
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

import llava.eval.answering.runner
from llava.checkpoint.folder import open_checkpoint
from llava.eval.answering.arguments import load
from llava.eval.answering.subset import write_spread
from llava.eval.benchmarks import BY_NAME
from llava.eval.benchmarks.preparing import Options
from llava.eval.scoring.mmbench_tsv import question_of, read_tsv
from llava.eval.scoring.report import read_report
from llava.eval.scoring.rules import normalise
from llava.eval.suite.benchmark import commands
from llava.eval.suite.in_memory import LoadedBenchmark
from tests.made_benchmarks import MAKERS, TEXT_MAKERS, rows_of
from tests.made_mmbench import write_tsv

TEXT = "the red line is at the top of the circle " * 40
GIVEN = {"conv_mode": "v1", "dtype": "fp32", "device": "cpu", "batch_size": 2, "max_new_tokens": 4}
LOADED = Namespace(device="cpu", dtype="fp32", vision_tower=None, vision_feature_cache=None)


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny):
    """The folders of benchmarks, as prepared."""
    root = tmp_path_factory.mktemp("data")
    for name, make in (MAKERS | TEXT_MAKERS).items():
        make(root / "raw" / name)
        BY_NAME[name].prepare(root / "raw" / name, root / name, Options(check_counts=False))
    for name, text in (("perplexity", TEXT), ("pile_10k", json.dumps({"text": TEXT}) + "\n")):
        (root / name).mkdir()
        (root / name / BY_NAME[name].questions).write_text(text)
    easy = root / "easy_vqa"
    easy.mkdir()
    rows = [{"question_id": str(i), "text": "What is it?", "image": f"{i % 8}.png"} for i in range(10)]
    (easy / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (easy / "annotations.json").write_text(json.dumps({str(i): ("yes", "red")[i % 2] for i in range(10)}))
    return root


def environment(data, name, tiny):
    images = {"IMAGES": str(tiny.images)} if name == "easy_vqa" else {}
    return {"DATA": str(data / name), "NAME": "tiny", "LIMIT_PER_TASK": "3" if name == "mmlu" else "1", **images}


def readable(name, text):
    """A letter or a box in place of a reply, which depends on the reply: the tiny model says neither."""
    number = sum(text.encode())
    return f"[0.1, 0.1, 0.{5 + number % 5}, 1.0]" if name == "refcocog" else "AB"[number % 2]


def make_right(folder, name, answers):
    """Changes annotations so that every third of the answers is right, and no other; boxes overlap anyway."""
    lines = rows_of(answers)
    if name == "mmbench":
        # All rotations of a question are right, or none.
        said = {str(line["question_id"]): line["text"] for line in lines}
        path = folder / BY_NAME[name].questions
        rows = read_tsv(path)
        for row in rows:
            row["answer"] = _truth(said[row["index"]], question_of(row["index"]))
        path.unlink()
        write_tsv(path, rows)
        return
    path = folder / BY_NAME[name].annotations[-1]
    content = json.loads(path.read_text())
    for number, line in enumerate(lines):
        key, text = str(line["question_id"]), line["text"]
        if name == "scienceqa":
            content[key]["answer"] = "AB".index(_truth(text, number))
        elif name == "mmlu":
            content[key]["answer"] = _truth(text, number)
        elif name == "refcocog" or number % 3:
            continue
        elif name == "textvqa":
            content["data"][number]["answers"] = [text] * 10
        elif name == "gqa":
            content[key]["answer"] = text.rstrip(".").lower()
        elif name == "ocrvqa":
            book, _, place = key.rpartition("_")
            content[book]["answers"][int(place)] = text
        elif name == "docvqa":
            content["data"][number]["answers"] = [text]
        elif name == "tdiuc":
            content["annotations"][number]["answers"][0]["answer"] = text
        elif name == "bbh":
            content[key]["target"] = text
        else:
            content[key] = normalise(text)
    # It may be a link to the download.
    path.unlink()
    path.write_text(json.dumps(content))


def _truth(letter, number):
    """The letter of every third answer, and another one for the others."""
    return letter if number % 3 == 0 else "B" if letter == "A" else "A"


def by_programs(program, name, checkpoint, environment, report):
    """The score by the programs; the annotations are made to fit part of the answers before these are scored."""
    benchmark = BY_NAME[name]
    given = ["--dtype", "fp32", "--device", "cpu", "--batch-size", "2", "--conv-mode", "v1", "--max_new_tokens", "4"]
    whole = {**os.environ, **environment, "RESULT": str(report), "GPUS": "1"}
    for module, *words in commands(benchmark, str(checkpoint), given, whole):
        asks = module == "llava.eval.answering.launch"
        if asks:
            # In this process.
            module, *words = (word for word in words if word not in ("--gpus", "1"))
        program(module, *words)
        if asks:
            make_right(Path(whole["DATA"]), name, Path(benchmark.places(str(checkpoint), whole)["answers"]))
    return read_report(report)


@pytest.mark.parametrize("name", [*MAKERS, "mmlu", "bbh", "easy_vqa", "perplexity", "pile_10k", "mmlu-loglikelihood"])
def test_the_score_of_the_programs(name, data, tiny, tiny_llava, tmp_path, program, monkeypatch):
    name, _, method = name.partition("-")
    root = tmp_path / "data"
    shutil.copytree(data / name, root / name, symlinks=True)
    own = environment(root, name, tiny) | ({"METHOD": method} if method else {})
    if name in ("scienceqa", "mmbench", "refcocog") or (name == "mmlu" and not method):
        runner = llava.eval.answering.runner
        line = runner.answer_line
        monkeypatch.setattr(runner, "answer_line", lambda q, text, model: line(q, readable(name, text), model))
    expected = by_programs(program, name, tiny_llava, own, tmp_path / "report.json")
    benchmark = LoadedBenchmark.open(BY_NAME[name], own, GIVEN, None, tmp_path)
    checkpoint = open_checkpoint(str(tiny_llava))
    benchmark.check(checkpoint)
    found = benchmark.report(checkpoint, load(LOADED, checkpoint, benchmark.sees))
    found = json.loads(json.dumps(found.as_dict()))
    expected = json.loads(json.dumps(expected.as_dict()))
    for values in (found, expected):
        # Names of the part of the questions, and of the model.
        for key in ("model", "benchmark"):
            values.pop(key)
        values["details"].pop("file", None)
    assert found == expected
    assert 0 < found["value"] < (1 if found["unit"] == "share" else float("inf"))
    # As JSON, for a file that says what a score depends on.
    assert json.loads(json.dumps(benchmark.settings)) == benchmark.settings


def test_a_limit_is_spread_over_the_file_and_keeps_rotations(data, tmp_path):
    lines = "".join(json.dumps({"question_id": i, "text": "?"}) + "\n" for i in range(10))
    (tmp_path / "q.jsonl").write_text(lines)
    assert write_spread(tmp_path / "q.jsonl", 4, tmp_path / "part.jsonl") == (4, 10)
    kept = [json.loads(line)["question_id"] for line in (tmp_path / "part.jsonl").read_text().splitlines()]
    assert kept == [0, 2, 5, 7]
    assert write_spread(tmp_path / "q.jsonl", 40, tmp_path / "part.jsonl") == (10, 10)
    assert (tmp_path / "part.jsonl").read_text() == lines
    source = data / "mmbench" / BY_NAME["mmbench"].questions
    assert write_spread(source, 2, tmp_path / "part.tsv") == (2, 3)
    rows, part = read_tsv(source), read_tsv(tmp_path / "part.tsv")
    assert part == [row for row in sorted(rows, key=lambda r: int(r["index"]) % 1000000) if "243" not in row["index"]]


@pytest.mark.parametrize("name", ["scienceqa", "mmbench", "textvqa", "mmlu", "pile_10k"])
def test_a_part_is_scored_as_a_part(name, data, tiny, tiny_llava, tmp_path):
    own = environment(data, name, tiny) | {"LIMIT_PER_TASK": ""}
    benchmark = LoadedBenchmark.open(BY_NAME[name], own, GIVEN, 2, tmp_path)
    checkpoint = open_checkpoint(str(tiny_llava))
    report = benchmark.report(checkpoint, load(LOADED, checkpoint, benchmark.sees))
    assert len(report.per_question or report.details["pieces"]) == (1 if name == "pile_10k" else 2)
    whole = LoadedBenchmark.open(BY_NAME[name], own, GIVEN, None, tmp_path)
    assert benchmark.settings != whole.settings


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("gqa", {"DATA": "nowhere"}, r"gqa: files nowhere/.*testdev.* do not exist; .*README.md says where"),
        ("easy_vqa", {"IMAGES": "nowhere"}, r"easy_vqa: 8 images are missing under nowhere: .*prepare the questions"),
        ("mmlu", {"LIMIT_PER_TASK": "few"}, r"mmlu: LIMIT_PER_TASK: .few. is not a whole number of at least 1"),
        ("mmlu", {"METHOD": "likelihood"}, r"mmlu: argument --method: invalid choice: .likelihood."),
    ],
)
def test_what_is_wrong_is_told_before_a_model_is_loaded(name, change, words, data, tiny, tmp_path):
    with pytest.raises(ValueError, match=words):
        LoadedBenchmark.open(BY_NAME[name], environment(data, name, tiny) | change, GIVEN, None, tmp_path)
