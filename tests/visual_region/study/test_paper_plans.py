"""The plans of the paper run end to end with tiny random models and 20 samples of every data set.

Each plan is run once, with a few of its rows: every experiment, step and benchmark of the plan, its tables and figures.
All data lies where the plans and their scripts look for it. What differs from a user's run: the model and its tower,
sizes (batch, LoRA, length of texts and answers), one layer removed for the curve, one share of the data besides all.
"""

import io
import json
import os
import shutil
import subprocess
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llava.eval.benchmarks import BY_NAME, TRAINING
from llava.eval.benchmarks.preparing import Options
from llava.eval.benchmarks.training import write_training
from tests.conftest import REPOSITORY
from tests.made_benchmarks import MAKERS, TEXT_MAKERS, draw
from visual_region.curve_file import WAYS, read_curve
from visual_region.scores import ScoreFile
from visual_region.study.results import read_results
from visual_region.study.yaml_file import read_yaml

LINKED = ("scripts", "plans", "llava", "bunny", "visual_region", "llava_plugins")
SAMPLES = 20
TASKS = 27
"""Of BIG-bench-hard, which is asked one question of each: with 20, some tasks would have none."""
SCORED = {"bbh": TASKS, "scienceqa": SAMPLES // 2}
"""Questions behind a score, if not `SAMPLES`: the paper's of ScienceQA is of those with an image, which are half."""
SMALL = {
    **{"BF16": "False", "DEEPSPEED": "", "BATCH": "10", "ACCUMULATION": "1", "WORKERS": "0"},
    **{"CHECKPOINTING": "False", "LORA_R": "2", "LORA_ALPHA": "4", "MAX_LENGTH": "256"},
}
SHORT = {"curve": "--most 1 --max_new_tokens 2", "reversion": f"--batch-size {SAMPLES}"}
"""Further flags of the plan's commands."""
SHARES = [100, 25]
"""Percent of the data, of the plan that compares shares."""
CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
ANY = Options(check_counts=False)
VISUAL = {"selections", "depths", "shares"}
"""Experiments that ask the visual benchmarks."""


def flickr30k(raw):
    """The authors' file of captions."""
    for number in range(SAMPLES):
        draw(raw / f"flickr30k-images/{number}.jpg", number)
    lines = [f"{number}.jpg#{i}\tA man {number}.\n" for number in range(SAMPLES) for i in range(2)]
    (raw / "results_20130124.token").write_text("".join(lines))


def make_training(name, raw, folder):
    """NAME.json, NAME as a link to its images, and links to these in images/, as the plans' comments say."""
    said, training = io.StringIO(), TRAINING[name]
    # Of the split that the benchmark asks, as the made downloads have.
    options = replace(ANY, split=training.own or "all")
    with redirect_stdout(said):
        assert write_training(training, name, raw, folder, folder / f"{name}.json", options) == SAMPLES
    images = folder / name
    images.symlink_to(said.getvalue().rsplit("--image-folder ", 1)[1].strip())
    for image in images.iterdir():
        (folder / "images" / image.name).symlink_to(image)


def make_texts(raw):
    """WikiText-2 and Pile-10k, a document for each sample."""
    raw.mkdir()
    pages = [f" = Page {number} = \n \n The number is {number} . \n" for number in range(SAMPLES)]
    (raw / "wiki.test.raw").write_text(" \n".join(["", *pages]))
    rows = [json.dumps({"text": f"Where is the red line {number}?"}) + "\n" for number in range(SAMPLES)]
    (raw / "train.jsonl").write_text("".join(rows))


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny):
    """A folder as the repository's root looks to the scripts, with all data of the plans."""
    root = tmp_path_factory.mktemp("papers")
    for name in LINKED:
        (root / name).symlink_to(REPOSITORY / name)
    data, raw = root / "playground/data", root / "raw"
    for name, make in (MAKERS | TEXT_MAKERS).items():
        make(raw / name, samples=TASKS if name == "bbh" else SAMPLES)
        BY_NAME[name].prepare(raw / name, data / "eval" / name, ANY)
    make_texts(raw / "texts")
    for name in ("wikitext", "pile_10k"):
        BY_NAME[name].prepare(raw / "texts", data / "eval" / name, ANY)
    flickr30k(raw / "flickr30k")
    (data / "training/images").mkdir(parents=True)
    for name in TRAINING:
        make_training(name, raw / name, data / "training")
    tuned = json.loads(tiny.data.read_text())[:SAMPLES]
    captions = json.loads(tiny.captions.read_text())
    captions = [captions[i % len(captions)] | {"id": f"c{i}"} for i in range(SAMPLES)]
    for samples, file, images in (
        (captions, data / "LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", data / "LLaVA-Pretrain/images"),
        (tuned, data / "llava_v1_5_mix665k.json", data),
        (captions, root / "data/pretrain/bunny_pretrain_laion_2m.json", root / "data/pretrain/images"),
        (tuned, root / "data/finetune/bunny_695k.json", root / "data/finetune/images"),
    ):
        images.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(samples))
        for image in tiny.images.iterdir():
            (images / image.name).symlink_to(image)
    return root


@pytest.fixture
def make_model(tmp_path, backbones):
    """(model_type of a family, layers) -> a tiny model of that depth."""

    def make(model_type, layers):
        folder = tmp_path / f"{model_type}-{layers}"
        torch.manual_seed(layers)
        # With the small weights of real models, so that many layers do not overflow.
        sizes = {"num_hidden_layers": layers, "initializer_range": 0.02}
        config = AutoConfig.from_pretrained(backbones[model_type], **sizes)
        shutil.copytree(backbones[model_type], folder, ignore=shutil.ignore_patterns("*.safetensors"))
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        if model_type != "llava_llama":
            # As the instruction models of Bunny's plans have, and Vicuna has not: the backbone is asked in it.
            (folder / "chat_template.jinja").write_text(CHAT)
        return folder

    return make


@pytest.fixture
def study(place, make_model, tiny, siglip, python):
    """Runs a plan of the repository with some of its rows (experiment -> rows); returns the plan and its folder."""

    def run(name, model_type, rows):
        plan = read_yaml(REPOSITORY / f"plans/{name}.yaml")
        # All experiments of the plan, with rows that they have.
        assert rows.keys() == plan["experiments"].keys()
        assert all(set(chosen) <= set(plan["experiments"][key]["rows"]) for key, chosen in rows.items())
        values = {
            "model": make_model(model_type, plan["layers"]),
            "tower": tiny.tower if model_type == "llava_llama" else siglip,
            "environment": json.dumps(SMALL),
            "evaluate.flags": "--max_new_tokens 2",
            **{f"experiments.{key}.rows": json.dumps(chosen) for key, chosen in rows.items()},
            **{key: f"{plan[key]} {flags}" for key, flags in SHORT.items() if key in plan},
            # Each further share would be a cell of its own.
            **({"experiments.shares.shares": json.dumps(SHARES)} if "shares" in rows else {}),
        }
        words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
        out = place / "out" / name
        done = subprocess.run(
            [python, "-m", "visual_region", "study", f"plans/{name}.yaml", "--out", str(out), *words],
            cwd=place,
            env=os.environ | {"PYTHON": python, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        logs = [file.read_text()[-3000:] for file in out.rglob("*.log")] if done.returncode else []
        assert done.returncode == 0, "\n".join([done.stdout, done.stderr, *logs])
        return plan, out

    return run


def samples_of(reports):
    """Benchmark -> questions behind its headline."""
    return {name: report.headline.samples for name, report in reports.items()}


def check_cell(result, plan):
    """Everything that the experiments of a cell need is there, of all samples; trained on its share of the data."""
    folder, experiments = result.folder, set(result.cell.experiments)
    assert result.finished
    columns = plan["evaluate"]["columns"] if experiments & VISUAL else []
    columns = columns + (plan["evaluate"]["text_columns"] if "text" in experiments else [])
    assert samples_of(result.reports) == {name: SCORED.get(name, SAMPLES) for name in columns}
    if result.cell.selection is not None:
        share = result.cell.share
        assert result.run["samples"] == result.run["data"]["samples"] == SAMPLES * share / 100
        assert result.run["data_share"] == f"{share:g}%"
        assert result.run["data_seed"] == (None if share == 100 else result.cell.seed)
        assert result.run["finished"]
    if "curve" in experiments:
        assert ScoreFile.read(folder / "scores.json").content["data"]["samples"] == SAMPLES
        (curve,) = read_curve(folder / "curve.json").checkpoints
        assert [[point.removed for point in curve.line(way)] for way in WAYS] == [[0, 1], [0, 1]]
        _, *names = plan["curve"].split()
        for point in curve.points:
            assert samples_of(point.reports) == {name: SCORED.get(name, SAMPLES) for name in names}
    if "reversion" in experiments:
        rows = json.loads((folder / "reversion.json").read_text())["rows"]
        words = plan["reversion"].split()
        files = [file for flag, file in pairwise(words) if flag in ("--data-path", "--text-file")]
        for row in rows.values():
            found = {file: value["samples"] for file, value in row["perplexity"].items()}
            assert found == dict.fromkeys(files, SAMPLES)
    if "attention" in experiments:
        for name in plan["attention"]:
            assert len(ScoreFile.read(folder / f"attention/{name}.json").content["samples"]) == SAMPLES


@pytest.mark.parametrize(
    ("name", "model_type", "row", "layers", "others", "figures"),
    [
        (
            *("paper-llava-7b", "llava_llama", "8 layers", (0, 4, 8, 12, 18, 22, 26, 30)),
            {"curve": ["32 layers", "8 layers"], "reversion": ["32 layers"], "attention": ["32 layers"]},
            {"figure1-reversion", "figure1-pruning", "figure4-pruning", "figure5-attention", "metrics"},
        ),
        ("paper-llava-13b", "llava_llama", "10 layers", tuple(range(0, 40, 4)), {}, set()),
        (
            *("paper-bunny-llama3-8b", "bunny-llama", "sparse and uniform", (0, 4, 8, 12, 18, 22, 26, 30)),
            {"selections": ["all layers", "sparse and uniform"], "attention": ["all layers"]},
            {"selections", "figure5-attention"},
        ),
        ("paper-bunny-phi3", "bunny-phi3", "8 layers", (0, 4, 8, 12, 18, 22, 26, 30), {}, set()),
    ],
)
def test_a_plan(study, name, model_type, row, layers, others, figures):
    experiments = read_yaml(REPOSITORY / f"plans/{name}.yaml")["experiments"]
    rows = {key: [row] for key in experiments} | others
    if "text" in rows:
        rows["text"] = [*rows["text"], "backbone"]
    plan, out = study(name, model_type, rows)
    results = read_results(out)
    assert {result.cell.row for result in results} == {chosen for names in rows.values() for chosen in names}
    assert {result.cell.share for result in results} == set(SHARES if "shares" in rows else [100])
    for result in results:
        check_cell(result, plan)
        if result.cell.row == row:
            assert (result.cell.layers, result.cell.depth) == (layers, plan["layers"])
    tables = {"cost", *(rows.keys() & {*VISUAL, "text", "reversion"})}
    tables |= {"importance", "pruning"} if "curve" in rows else set()
    assert {file.stem for file in (out / "tables").glob("*.tex")} == tables
    assert {file.stem for file in (out / "figures").glob("*.svg")} == {"figure2-depths", "figure3-hours"} | figures
