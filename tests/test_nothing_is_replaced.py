"""No program writes over what it reads, or over a file or folder of another kind; every output flag is in the table."""

import argparse
import ast
import json
import re
import shutil

import pytest
import torch

from llava.eval.benchmarks import BY_NAME
from llava.outputs import OutputError, check_run_folder
from tests.conftest import REPOSITORY
from visual_region.__main__ import make_parser
from visual_region.commands import COMMANDS

PACKAGES = ("llava", "bunny", "visual_region", "playground", "scripts")
OUTPUT = re.compile(
    r"--(.*-)?(out|outputs?|dst|save|answers|report|upload|picture|markdown|results|publish|cache|block|training)([-_].*)?"
)
"""Names of flags that may be a place to write."""
NO_PLACE = {"--block", "--save-steps"}
MODEL = "--model-path llava"
DATA = "--data-path data.json --image-folder images"
ANSWER = f"{MODEL} --question-file q.jsonl --image-folder images"
SCORE = "--result-file answers.jsonl --annotation-file ann.json"

FILES = {
    "visual_region score": {"--output": f"{MODEL} {DATA}"},
    "visual_region picture": {"--output": "bars scores.json"},
    "visual_region select": dict.fromkeys(("--output", "--markdown", "--picture"), "0,3 --num-layers 6"),
    "visual_region plan": {"--output": MODEL},
    "visual_region perplexity": {"--output": f"{MODEL} {DATA} --backbone llm"},
    "visual_region curve": {"--output": f"{ANSWER} --annotation-file ann.json --scores scores.json"},
    "visual_region prune": {"--block-scores": f"{MODEL} {DATA} --block 2 --output new"},
    "llava.eval.model_vqa": {"--answers-file": ANSWER},
    "llava.eval.model_vqa_loader": {"--answers-file": ANSWER},
    "llava.eval.model_vqa_mmbench": {"--answers-file": ANSWER},
    "llava.eval.model_vqa_science": {"--answers-file": ANSWER},
    "llava.eval.model_mmlu": {"--answers-file": f"{ANSWER} --shots-file shots.json"},
    "llava.eval.perplexity": {"--report-file": f"{MODEL} --text-file notes.txt"},
    "llava.eval.answering.merge_answers": {"--output": "answers.jsonl"},
    "llava.eval.answering.subset": {"--output": "--question-file q.jsonl"},
    "llava.eval.convert_gqa": {"--dst": "--src answers.jsonl"},
    "scripts/extract_mm_projector.py": {"--output": MODEL},
    "llava.eval.prepare": {"--as-training": "docvqa --raw images --any-count"},
} | {f"llava.eval.score {name}": {"--report-file": SCORE} for name, b in BY_NAME.items() if b.score}
FILES["llava.eval.score scienceqa"] = dict.fromkeys(
    ("--report-file", "--output-file", "--output-result"), "--result-file answers.jsonl --base-dir ."
)
FILES["llava.eval.score easy_vqa"]["--output-file"] = SCORE
"""Program -> flag that names a file to write -> the program's other flags."""
FOLDERS = {
    "visual_region prune": {
        "--output": f"{MODEL} --layers 1",
        "--base-output": "--model-path lora --layers 1 --output new",
    },
    "visual_region revert": {"--output": f"{MODEL} --layers 1 --backbone llm"},
    "visual_region export": {"--output": MODEL},
    "visual_region heal": {"--output": f"{MODEL} --teacher lora {DATA}"},
    "scripts/merge_lora_weights.py": {"--save-model-path": "--model-path lora"},
    "scripts/average_weights.py": {"--output": "--model-paths llava llava"},
}
"""The same for folders of checkpoints; --overwrite is given where it exists."""
CACHES = {
    "visual_region score": f"{MODEL} {DATA} --output new.json",
    "visual_region prune": f"{MODEL} {DATA} --block 2 --output new",
    "visual_region heal": f"{MODEL} --teacher lora {DATA} --output new",
    "visual_region perplexity": f"{MODEL} {DATA} --backbone llm --output new.json",
    "visual_region curve": f"{ANSWER} --annotation-file ann.json --scores scores.json --output new.json",
    "llava.eval.perplexity": f"{MODEL} --data-path data.json --report-file new.json",
} | {
    f"llava.eval.model_{name}": f"{ANSWER} --answers-file new.jsonl"
    for name in ("vqa", "vqa_loader", "vqa_mmbench", "vqa_science")
}
"""Programs with --vision-feature-cache. MMLU has no images and does not use it."""
INSIDE = [
    ("llava.eval.suite.compare", "--output", "", ("comparison.json", "comparison.md", "comparison.png")),
    ("llava.eval.suite.all", "--results", "llava --only gqa", ("summary.json", "summary.md", "gqa.json", "state.json")),
    ("llava.eval.prepare", "--out", "refcocog --raw raw --any-count", ("questions.jsonl", "annotations.json")),
    (
        "llava.eval.convert_mmbench",
        "--upload-dir",
        "--annotation-file ann.json --result-dir . --experiment answers",
        ("answers.xlsx",),
    ),
    ("visual_region study", "--out", "study.yaml", ("plan.yaml",)),
    ("visual_region study", "--publish", "study.yaml", ("plan.yaml",)),
    ("playground.embedded.report", "--out", "--blind ann.json", ("report.json", "report.md", "report.png")),
]
"""Programs that write files of fixed names into a folder: program, flag, other flags, names."""
STUDY = """
model: llm
train: {script: notes.txt}
rows: {all: all}
experiments: {selections: {rows: [all]}}
evaluate: {columns: [gqa]}
"""
LAUNCH = "llava.eval.answering.launch"
"""It passes the flags of other programs on."""
KEEPS = {"playground.embedded.prepare": {"--out"}}
"""Programs that leave alone what exists."""


def programs():
    """Every program of this project by the name that starts it; wrappers of others are left out."""
    for package in PACKAGES:
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            inside = file.relative_to(REPOSITORY)
            name = str(inside) if package == "scripts" else ".".join(inside.with_suffix("").parts)
            others = (
                "bunny.",
                "scripts/bench",
                "scripts/convert",
                "llava.train",
                "llava.eval.eval_",
                "llava.eval.harness",
            )
            wrapper = name.startswith(others)
            body = ast.parse(file.read_text(encoding="utf-8")).body
            starts = any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in body)
            if starts and not wrapper and name not in ("visual_region.__main__", "llava.eval.score"):
                yield name
    yield from (f"visual_region {name}" for name in COMMANDS)
    yield from (f"llava.eval.score {name}" for name, benchmark in BY_NAME.items() if benchmark.score)


class Stop(Exception):
    """A parser is complete."""


def test_every_output_flag_is_in_the_tables(monkeypatch, program):
    found = {}

    def parse(parser, *args, **kwargs):
        raise Stop(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
    for name in programs():
        if name.startswith("llava.eval.score "):
            parser = BY_NAME[name.split()[1]].score_parser()
        elif name.startswith("visual_region "):
            parser = make_parser(name.split()[1])
        else:
            with pytest.raises(Stop) as stop:
                program(name)
            parser = stop.value.args[0]
        flags = {flag for flag in parser._option_string_actions if OUTPUT.fullmatch(flag)} - NO_PLACE
        if flags:
            found[name] = flags
    expected = {name: set() for name in (*FILES, *FOLDERS, *CACHES, *KEEPS, *(row[0] for row in INSIDE))}
    for name, flags in [*FILES.items(), *FOLDERS.items(), *KEEPS.items()]:
        expected[name] |= set(flags)
    for name, flag, *_ in INSIDE:
        expected[name].add(flag)
    for name in (*CACHES, "llava.eval.model_mmlu"):
        expected[name].add("--vision-feature-cache")
    assert found == expected


@pytest.fixture
def place(tmp_path, tiny, tiny_llava, tiny_lora, monkeypatch):
    """One folder with something of every kind, in which the programs run; models that load fail the test."""
    for name, source in {"llava": tiny_llava, "llm": tiny.llm, "tower": tiny.tower, "lora": tiny_lora}.items():
        shutil.copytree(source, tmp_path / name)
    for name in ("llava", "lora"):
        file = tmp_path / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"mm_vision_tower": str(tmp_path / "tower")}))
    file = tmp_path / "lora" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(tmp_path / "llm")}))
    shutil.copytree(tiny.images, tmp_path / "images")
    shutil.copy(tiny.data, tmp_path / "data.json")
    (tmp_path / "notes.txt").write_text("These are my notes.\n")
    (tmp_path / "q.jsonl").write_text(json.dumps({"question_id": 0, "text": "Where?", "image": "0.png"}) + "\n")
    (tmp_path / "ann.json").write_text(json.dumps({"0": "left"}))
    (tmp_path / "shots.json").write_text("{}")
    line = {"question_id": 0, "prompt": "Where?", "text": "left", "answer_id": "x", "model_id": "m", "metadata": {}}
    (tmp_path / "answers.jsonl").write_text(json.dumps(line) + "\n")
    scores = {"num_layers": 6, "region": [0], "metrics": {"angular": {"values": [0.1] * 6}}}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    monkeypatch.chdir(tmp_path)
    # The second is the name by which a training calls it.
    for module in ("llava.model.builder", "llava.train.run"):
        monkeypatch.setattr(f"{module}.load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}


@pytest.fixture
def refused(program, place):
    """Runs a program that must end with one line, and must leave every file as it was."""

    def run(name, *words):
        first, *rest = name.split()
        before = contents(place)
        with pytest.raises(SystemExit) as stop:
            program(first, *rest, *words)
        text = str(stop.value)
        assert text.startswith("error: "), (name, words, text)
        assert contents(place) == before, (name, words)
        return text

    return run


OTHERS = ("notes.txt", "data.json", "q.jsonl", "ann.json", "images/0.png", "llava/config.json", "llm/model.safetensors")
WHY = r"exists and is not|is one of the files that are read|give a name that ends in"


@pytest.mark.parametrize(
    ("name", "flag"),
    [*((name, flag) for name, flags in FILES.items() for flag in flags), (LAUNCH, "--answers-file")],
)
def test_files_of_another_kind_stay(refused, name, flag):
    words = f"--gpus 2 llava.eval.model_vqa_loader {ANSWER}" if name == LAUNCH else FILES[name][flag]
    for other in OTHERS:
        text = refused(name, *words.split(), flag, other)
        assert re.search(WHY, text), (name, flag, text)
        assert other in text, (name, flag, text)


@pytest.mark.parametrize(("name", "flag"), [(name, flag) for name, flags in FOLDERS.items() for flag in flags])
def test_folders_of_another_kind_stay(refused, name, flag):
    """The language model, the tower, the checkpoint itself, the images, somebody's folder, and a file."""
    words = FOLDERS[name][flag].split()
    if "heal" not in name:
        words.append("--overwrite")
    for other in ("llm", "tower", "llava", "lora", "images", "mine", "notes.txt"):
        unrelated = other == "llava" and "lora" in words and "llava" not in words
        # A training may begin in a folder that holds its log.
        if unrelated or (other == "lora" and "lora" not in words) or (other == "mine" and "heal" in name):
            continue
        text = refused(name, *words, flag, other)
        assert f"{flag} {other}" in text, (name, flag, text)


@pytest.mark.parametrize("name", CACHES)
def test_caches_stay_out_of_models(refused, name):
    text = refused(name, *CACHES[name].split(), "--vision-feature-cache", "llava/cache")
    assert "--vision-feature-cache llava/cache is inside" in text


@pytest.mark.parametrize(("name", "flag", "words", "file"), [(*row, file) for *row, files in INSIDE for file in files])
def test_files_of_fixed_names_stay(refused, place, name, flag, words, file):
    words = words.split()
    if name.endswith("prepare"):
        from tests.made_benchmarks import MAKERS

        MAKERS["refcocog"](place / "raw")
    if name.endswith("all"):
        for needed in BY_NAME["gqa"].data:
            (place / "data" / needed).parent.mkdir(parents=True, exist_ok=True)
            (place / "data" / needed).write_text("{}\n")
        words += ["--data", "data"]
    if name.endswith("compare"):
        words += ["a", "b"]
    (place / "mine" / file).write_text('["my own"]')
    assert file in refused(name, *words, flag, "mine")


@pytest.mark.parametrize("flag", ["--out", "--publish"])
@pytest.mark.parametrize("file", ["cells/all-seed0/done.json", "tables/cost.tex", "figures/metrics.png"])
def test_a_study_stays_out_of_other_folders(refused, place, flag, file):
    """Also if a cell.json is there that no study wrote."""
    (place / "mine" / file).parent.mkdir(parents=True)
    (place / "mine" / file).write_text('["my own"]')
    (place / "mine" / file).with_name("cell.json").write_text('{"cell": 1}')
    text = refused("visual_region study", "study.yaml", flag, "mine")
    assert f"{flag} mine holds {file.split('/')[0]} but no plan.yaml" in text
    assert "give another folder, such as mine/study" in text


@pytest.fixture
def refused_training(program, place, train_flags):
    """Runs a training that must be refused, and must leave every file as it was."""
    places = {"model_name_or_path": "llm", "vision_tower": "tower", "data_path": "data.json", "image_folder": "images"}

    def run(output, **flags):
        before = contents(place)
        with pytest.raises(SystemExit) as stop:
            program("llava.train.train", *train_flags(output, **places, **flags))
        assert contents(place) == before
        return str(stop.value)

    return run


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("llm", "is the folder of --model_name_or_path"),
        ("tower", "is the folder of --vision_tower"),
        ("stage1", "is the folder of --pretrain_mm_mlp_adapter"),
        ("images", "is the folder of --image_folder"),
        (".", "is the folder of --data_path"),
        ("other", "holds a model of type 'llama', which no training of this kind wrote"),
        ("llava", "holds a model of type 'llava_llama', which no training of this kind wrote"),
        ("adapter", "holds a model, which no training of this kind wrote"),
        ("notes.txt", "is a file; give a folder"),
        ("notes.txt/out", "nothing can be written below it"),
    ],
)
def test_a_training_stays_out_of_other_folders(refused_training, place, output, why, lora):
    shutil.copytree(place / "llm", place / "other")
    for name in ("stage1", "adapter"):
        (place / name).mkdir()
    torch.save({"model.mm_projector.0.weight": torch.ones(1)}, place / "stage1" / "mm_projector.bin")
    (place / "adapter" / "adapter_config.json").write_text("{}")
    text = refused_training(output, lora_enable=lora, pretrain_mm_mlp_adapter="stage1/mm_projector.bin")
    assert f"--output_dir {output}" in text
    assert why in text


def test_the_cache_of_a_training_stays_out_of_models(refused_training, place):
    for cache in ("llm/cache", "tower"):
        assert f"--vision_feature_cache {cache} is inside" in refused_training("new", vision_feature_cache=cache)


def test_what_a_training_of_ours_left_is_accepted(place):
    """Its finished folder, one that was killed before or while its files were moved there, and a folder with a log."""
    finished = shutil.copytree(place / "lora", place / "finished")
    (finished / "trainer_state.json").write_text("{}")
    killed = place / "killed"
    (killed / "checkpoint-2").mkdir(parents=True)
    (killed / "checkpoint-2" / "trainer_state.json").write_text("{}")
    for moved in ("", "adapter_model.safetensors"):
        if moved:
            shutil.copy(finished / moved, killed)
        for folder in (finished, killed, place / "mine", place / "new"):
            check_run_folder(folder, {"--model_name_or_path": place / "llm"}, {"--data_path": place / "data.json"})
    shutil.copy(place / "data.json", finished)
    check_run_folder(finished, {}, {"--data_path": finished / "data.json"})
    with pytest.raises(OutputError, match="is the folder of --model_name_or_path"):
        check_run_folder(finished, {"--model_name_or_path": finished}, {})
