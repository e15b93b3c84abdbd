"""Every benchmark's script, from the official download to the final number, on small sets in the official formats."""

import json
import os
import random
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import openpyxl
import pytest

from llava.eval.answering import launch
from llava.eval.benchmarks import BY_NAME
from llava.eval.benchmarks.preparing import Options
from llava.eval.scoring.report import read_report
from tests.conftest import REPOSITORY
from tests.made_benchmarks import MAKERS

SCRIPTS = {name: name for name in MAKERS} | {"scienceqa": "sqa"}
HEADLINES = {
    "textvqa": "accuracy",
    "scienceqa": "image_accuracy",
    "gqa": "accuracy",
    "mmbench": "circular",
    "ocrvqa": "relaxed",
    "docvqa": "anls",
    "refcocog": "mean_iou",
    "tdiuc": "accuracy",
}
SAMPLES = {"scienceqa": 3, "mmbench": 3}


def commands(script, data, checkpoint, *flags, **settings):
    """What a script would run."""
    environment = os.environ | {"DRY_RUN": "1", "PYTHON": sys.executable, "DATA": str(data), "NAME": "tiny"} | settings
    line = ["bash", f"scripts/eval/{script}.sh", str(checkpoint), *flags]
    result = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    check, *rest = [shlex.split(command) for command in result.stdout.splitlines()]
    assert check == [*rest[-1], "--check"], "the scorer's flags are checked first, as they will be given"
    return rest


def execute(command, monkeypatch):
    """Runs a command of a script in this process, which has torch loaded already."""
    assert command[1] == "-m"
    words = command[2:]
    if words[0] == "llava.eval.answering.launch":
        words = words[words.index(next(w for w in words[1:] if w.startswith("llava."))) :]
    monkeypatch.setattr(sys, "argv", words)
    with warnings.catch_warnings():
        # Some modules were imported before by other tests.
        warnings.simplefilter("ignore", RuntimeWarning)
        runpy.run_module(words[0], run_name="__main__")


def flag(command, name):
    return command[command.index(name) + 1]


@pytest.fixture(params=sorted(MAKERS))
def prepared(request, tmp_path):
    """A benchmark, its folder after preparation, and the right replies."""
    perfect = MAKERS[request.param](tmp_path / "raw")
    BY_NAME[request.param].prepare(tmp_path / "raw", tmp_path / "data", Options(check_counts=False))
    return request.param, tmp_path / "data", perfect


def test_from_download_to_number(prepared, tiny_llava, monkeypatch, capsys):
    name, data, perfect = prepared
    run = commands(SCRIPTS[name], data, tiny_llava, "--max_new_tokens", "6", "--conv-mode", "v1")
    for command in run:
        execute(command, monkeypatch)
    report_file = Path(flag(run[-1], "--report-file"))
    report = read_report(report_file)
    assert (report.benchmark, report.metric, report.answers) == (name, HEADLINES[name], len(perfect))
    assert report.headline.samples == SAMPLES.get(name, len(perfect))
    told = [text for text in report.warnings if not text.startswith("not the published benchmark: ")]
    assert len(report.warnings) - len(told) == 1
    assert not told or name == "tdiuc"
    assert report.model == tiny_llava.name
    assert f"* {HEADLINES[name]}" in capsys.readouterr().out

    # With the right replies in the place of the model's, the same last command gives the whole score.
    answers = Path(flag(run[-1], "--result-file"))
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    unseen = dict(perfect)
    for line in lines:
        if name == "textvqa":
            number = next(q for q, word in perfect.items() if f"word {word[4:]}?" in line["prompt"])
        else:
            number = str(line["question_id"])
        line["text"] = unseen.pop(number)
    assert not unseen
    answers.write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
    execute(run[-1], monkeypatch)
    report = read_report(report_file)
    assert report.headline.value == pytest.approx(1)
    assert report.parse_failures == 0
    if name == "mmbench":
        execute(run[1], monkeypatch)
        sheet = openpyxl.load_workbook(data / "answers_upload/mmbench_dev_20230712/tiny.xlsx").active
        assert {str(row[0].value): row[6].value for row in sheet.iter_rows(min_row=2)} == perfect
    if name == "gqa":
        execute(run[1], monkeypatch)
        predictions = json.loads((answers.parent / "testdev_balanced_predictions.json").read_text())
        assert {p["questionId"]: p["prediction"] for p in predictions} == perfect


def test_two_processes_answer_as_one(tmp_path, tiny_llava, monkeypatch, python):
    """With a process for each of two GPUs that are not there."""
    MAKERS["gqa"](tmp_path / "raw")
    BY_NAME["gqa"].prepare(tmp_path / "raw", tmp_path / "data", Options(check_counts=False))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    texts = []
    for gpus in ("1", "2"):
        flags = ["--conv-mode", "v1", "--max_new_tokens", "6"]
        run = commands("gqa", tmp_path / "data", tiny_llava, *flags, NAME=f"run{gpus}", GPUS=gpus)
        assert flag(run[0], "--gpus") == gpus
        if gpus == "1":
            execute(run[0], monkeypatch)
        else:
            monkeypatch.setattr(sys, "argv", run[0][2:])
            monkeypatch.setattr(sys, "executable", python)
            launch.main()
        answers = Path(flag(run[0], "--answers-file"))
        texts.append([json.loads(row)["text"] for row in answers.read_text().splitlines()])
    assert texts[0] == texts[1]
    execute(run[-1], monkeypatch)
    assert read_report(flag(run[-1], "--report-file")).headline.samples == 6


def test_the_real_run_leaves_the_score_with_images_in_the_model_card(tmp_path):
    """`all.sh` puts its row there: the last run of the region-tuned model is the one that may stay."""
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text('#!/bin/bash\necho "$*" >> "$LOG"\n')
    python.chmod(0o755)
    environment = os.environ | {"PYTHON": str(python), "LOG": str(log), "OUT": "out", "REGION": "region"}
    subprocess.run(["bash", "scripts/eval/quickstart_real_run.sh"], cwd=REPOSITORY, env=environment, check=True)
    runs = [line for line in log.read_text().splitlines() if line.startswith("-m llava.eval.suite.all region ")]
    assert ["no images" in run for run in runs] == [True, False, False]


@pytest.fixture
def scoring(prepared, tmp_path):
    """A benchmark's last command without the checkpoint, right answers in its format, and the file where they go."""
    name, data, perfect = prepared
    command = commands(SCRIPTS[name], data, "no-checkpoint", FRAME="padded")[-1]
    path = Path(flag(command, "--result-file"))
    path.parent.mkdir(parents=True)
    lines = [{"question_id": key, "prompt": "<image>\nx", "text": text} for key, text in perfect.items()]
    if name == "textvqa":
        asked = [json.loads(row) for row in (data / "llava_textvqa_val_v051_ocr.jsonl").read_text().splitlines()]
        lines = [
            {"question_id": row["question_id"], "prompt": row["text"], "text": text}
            for row, text in zip(asked, perfect.values(), strict=True)
        ]

    def score(changed, monkeypatch):
        path.write_text("".join(json.dumps(line) + "\n" for line in changed))
        execute(command, monkeypatch)
        return read_report(flag(command, "--report-file"))

    return lines, score, command


def test_any_reply_in_any_order_gives_a_score_in_bounds(scoring, monkeypatch):
    lines, score, _ = scoring
    draw = random.Random(0)
    letters = "ABCDabcd []0.,159%-:'\"\n\t()éß漢\U0001f600\u2028\x00\ud800"
    for _ in range(5):
        said = [line | {"text": "".join(draw.choice(letters) for _ in range(draw.randrange(30)))} for line in lines]
        report = score(said, monkeypatch)
        for measure in [
            report.headline,
            *report.metrics.values(),
            *(m for g in report.groups.values() for m in g.values()),
        ]:
            assert 0 <= measure.value <= 1
            assert measure.low is None or 0 <= measure.low <= measure.value <= measure.high <= 1
        assert 0 <= report.parse_failures <= report.answers == len(lines)
        assert score(draw.sample(said, len(said)), monkeypatch) == report
    assert score(lines, monkeypatch).headline.value == pytest.approx(1)


def test_bad_answers_are_one_clear_error(scoring, monkeypatch, tmp_path):
    lines, score, command = scoring
    for changed, words in (
        ([], "holds no answers"),
        (lines[1:], r"1 question id is not answered: .*--missing"),
        ([*lines, lines[0] | {"question_id": "stranger"}], "1 question id is not among the annotations: stranger"),
        ([*lines, lines[0]], r"(answered more than once|not among the annotations)"),
        ([{"text": "no id"}], "question_id and text"),
    ):
        with pytest.raises(SystemExit, match=words):
            score(changed, monkeypatch)
    command.extend(["--missing", "skip"])
    report = score(lines[1:], monkeypatch)
    assert "1 of" in report.warnings[0]
    assert "left out" in report.warnings[0]
    assert "not the published benchmark" in report.warnings[-1]
    annotations = "--base-dir" if "--base-dir" in command else "--annotation-file"
    command[command.index(annotations) + 1] = str(tmp_path / "nowhere")
    with pytest.raises(SystemExit, match=r"nowhere.* does not exist"):
        score(lines, monkeypatch)


@pytest.mark.parametrize(
    ("damage", "settings", "words"),
    [
        ("gone", {}, r"data/data/testdev_balanced_questions\.json does not exist"),
        ("other", {}, "6 question ids are not among the annotations"),
        (None, {"MISSING": "some"}, r"argument --missing: invalid choice: 'some'"),
        (None, {}, None),
    ],
)
def test_what_scoring_lacks_is_told_before_the_first_answer(tmp_path, monkeypatch, capsys, damage, settings, words):
    """gqa.sh without annotations must not answer 12,578 questions first."""
    MAKERS["gqa"](tmp_path / "raw")
    BY_NAME["gqa"].prepare(tmp_path / "raw", tmp_path / "data", Options(check_counts=False))
    annotations = tmp_path / "data/data/testdev_balanced_questions.json"
    if damage == "gone":
        annotations.unlink()
    if damage == "other":
        annotations.write_text(json.dumps({f"other {k}": v for k, v in json.loads(annotations.read_text()).items()}))
    check = [*commands("gqa", tmp_path / "data", "no checkpoint", **settings)[-1], "--check"]
    capsys.readouterr()
    if words is None:
        execute(check, monkeypatch)
        assert not Path(flag(check, "--result-file")).parent.exists()
        assert not capsys.readouterr().out
        return
    with pytest.raises(SystemExit) as stopped:
        execute(check, monkeypatch)
    assert re.search(words, f"{stopped.value.code} {capsys.readouterr().err}")


def test_every_benchmark_passes_the_check_without_answers(prepared, tiny_llava, monkeypatch, capsys):
    name, data, _ = prepared
    score = commands(SCRIPTS[name], data, tiny_llava)[-1]
    execute([*score, "--check"], monkeypatch)
    assert not Path(flag(score, "--report-file")).exists()


@pytest.mark.parametrize("script", [*SCRIPTS.values(), "easy_vqa", "bbh", "mmlu"])
def test_without_a_score_nothing_is_checked(script, tmp_path):
    environment = os.environ | {"DRY_RUN": "1", "PYTHON": sys.executable, "DATA": str(tmp_path), "NO_SCORE": "1"}
    line = ["bash", f"scripts/eval/{script}.sh", "checkpoint"]
    result = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert "llava.eval.answering.launch" in result.stdout
    assert "llava.eval.score" not in result.stdout


@pytest.mark.parametrize("script", [*SCRIPTS.values(), "scienceqa", "easy_vqa"])
def test_settings_reach_the_commands(script, tmp_path):
    run = commands(script, tmp_path / "a b", "ck pt", "--batch-size", "3", CONV="v0", MISSING="skip", NAME="my run")
    assert flag(run[0], "--model-path") == "ck pt"
    assert flag(run[0], "--conv-mode") == "v0"
    assert flag(run[0], "--temperature") == "0"
    assert flag(run[0], "--batch-size") == "3"
    assert flag(run[-1], "--missing") == "skip"
    answers = flag(run[-1], "--result-file")
    assert answers == flag(run[0], "--answers-file")
    assert answers.startswith(str(tmp_path / "a b"))
    assert "my run" in answers
    assert flag(run[-1], "--report-file") == answers.removesuffix(".jsonl") + ".score.json"
    other = commands(script, tmp_path, "c", RESULT="/r.json")
    assert flag(other[-1], "--report-file") == "/r.json"


@pytest.mark.parametrize("script", SCRIPTS.values())
def test_no_checkpoint(script):
    line = ["bash", f"scripts/eval/{script}.sh"]
    result = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == f"error: no checkpoint (usage: bash scripts/eval/{script}.sh CHECKPOINT [flags])\n"


@pytest.mark.parametrize("name", ["gqa", "mmbench"])
def test_upstreams_converters_go_by_their_names(name):
    script = {"gqa": "convert_gqa_for_eval", "mmbench": "convert_mmbench_for_submission"}[name]
    line = [sys.executable, f"scripts/{script}.py", "--help"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert ("--src" if name == "gqa" else "--upload-dir") in result.stdout
