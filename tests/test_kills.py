"""Programs that are killed at random moments and run again write what an uninterrupted run writes, and leave nothing.

Here two kills of a few programs; `python tests/kills.py --kills 20` makes more, of all.
"""

import hashlib
import json
import os
import re
import shutil

import pytest

from tests.conftest import REPOSITORY
from tests.kills import Case, kill_many
from tests.made_benchmarks import MAKERS

KILLS, SEED = int(os.environ.get("KILLS", 2)), os.environ.get("KILL_SEED", 0)
SAVED = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
DONE = "holds a checkpoint already; --overwrite replaces it"
REQUIREMENTS = ("setup.py", "constraints.txt", "playground/requirements.txt")
SMALLER = {
    "VERSION=chatml": "VERSION=v1",
    "STEPS=(60|240)": "STEPS=4",
    "SAVE_STEPS=\\d+": "SAVE_STEPS=2",
    "BATCH=(32|8)": "BATCH=2",
    "LORA_R=32 LORA_ALPHA=64": "LORA_R=4 LORA_ALPHA=8",
    "--samples 64": "--samples 8",
    "--limit 600": "--limit 10",
    "--batch-size (64|8) ": "--batch-size 4 ",
    "--lora-r 32 ": "--lora-r 4 ",
    "--steps 30 ": "--steps 4 ",
    "--save-steps 10 ": "--save-steps 2 ",
}
"""Settings of the quickstart for a tiny model."""
LORA = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "tune_layers": "0,3"}


@pytest.fixture(scope="session")
def cases(tiny, tiny_llava, tiny_lora, train_flags, made_once, python):
    """The programs by name; all write into the folder where they run."""
    from PIL import Image

    made = made_once("killed", lambda folder: _make_inputs(folder, Image))
    questions, images = made / "questions.jsonl", made / "images"
    region = "visual_region"
    model = ["--model-path", tiny_llava]
    answer = [*model, "--question-file", questions, "--image-folder", images, "--answers-file", "a.jsonl"]
    answer += ["--conv-mode", "v1", "--temperature", 0, "--max_new_tokens", 8, "--batch-size", 4]
    loader = "llava.eval.model_vqa_loader"
    scored = ["--data-path", tiny.data, "--image-folder", tiny.images, "--batch-size", 2, "--resamples", 50]
    easy = {"DATA": "easy", "IMAGES": str(images), "CONV": "v1"}

    def copied(folder):
        shutil.copytree(made / "easy", folder / "easy")

    def training(**changes):
        return Case(["llava.train.train", *train_flags("out", **SAVED, **changes)])

    found = {
        "lora": training(**LORA),
        "full": training(tune_layers="1,4"),
        "projector": training(tune_mm_mlp_adapter=True, version="plain", data_path=tiny.captions),
        "cached": training(**LORA, vision_feature_cache="features"),
        "evaluate": Case([loader, *answer]),
        "evaluate-2": Case(
            ["llava.eval.answering.launch", "--gpus", 2, loader, *answer], times=r"\.log$", counted=False
        ),
        "features": Case([loader, *answer, "--vision-feature-cache", "features"]),
        "benchmark": Case(
            ["llava.eval.suite.benchmark", "easy_vqa", tiny_llava, "--batch-size", 4], copied, easy, counted=False
        ),
        "score-answers": Case(
            ["llava.eval.score", "easy_vqa", "--annotation-file", made / "easy/annotations.json", "--result-file",
             made / "answers.jsonl", "--report-file", "report.json"],
        ),
        "perplexity": Case(
            ["llava.eval.perplexity", *model, "--text-file", made / "text.txt", "--report-file", "report.json",
             "--context", 32, "--stride", 16],
        ),
        "score": Case(
            [region, "score", *model, *scored, "--samples", "all", "--backbone", tiny.llm, "--output", "s.json"],
        ),
        "curve": Case(
            [region, "curve", *model, "--question-file", made / "easy/questions.jsonl", "--annotation-file",
             made / "easy/annotations.json", "--image-folder", images, "--conv-mode", "v1", "--batch-size", 4,
             "--order", "1,4", "--most", 2, "--limit", 12, "--output", "curve.json"],
        ),
        "prune": Case([region, "prune", *model, "--layers", "1", "--output", "out"], done=DONE),
        "prune-lora": Case([region, "prune", "--model-path", tiny_lora, "--layers", "1", "--output", "out"], done=DONE),
        "prune-base": Case(
            [region, "prune", "--model-path", tiny_lora, "--layers", "1", "--output", "out", "--base-output", "base"],
            done=DONE,
        ),
        "prune-block": Case(
            [region, "prune", *model, *scored[:-2], "--samples", 8, "--block", 2, "--anywhere", "--block-scores",
             "b.json", "--output", "out"], done=DONE,
        ),
        "revert": Case(
            [region, "revert", *model, "--backbone", tiny.llm, "--layers", "0", "--output", "out"], done=DONE,
        ),
        "export": Case([region, "export", *model, "--output", "out"], done=DONE),
        "quickstart": Case(
            ["bash", "scripts/quickstart.sh"], lambda folder: _make_quickstart(folder, made, tiny, python),
            {"VENV": "venv"}, times=r"/stages/\w+$|/report\.json$|\.run\.json$",
        ),
        "study": Case(
            [region, "study", "plan.yaml"], lambda folder: _make_study(folder, made, tiny),
            times=r"\.log$|/done\.json$|\.run\.json$|/state\.json$|/tables/cost\.|/figures/selections\.", counted=False,
        ),
        "playground": Case(["playground.embedded.prepare", "--out", "out"]),
    }  # fmt: skip
    for name in ("textvqa", "gqa", "refcocog", "ocrvqa"):
        flags = [name, "--raw", made / name, "--out", "out", "--any-count"]
        found[f"prepare-{name}"] = Case(["llava.eval.prepare", *flags])
    return found


def _make_inputs(folder, image):
    (folder / "images").mkdir()
    for i in range(80):
        image.new("RGB", (20 + i % 9, 24), (i * 37 % 256, i * 91 % 256, i)).save(folder / f"images/{i}.png")
    rows = [
        {"question_id": i, "text": "Where is the line?" + " please" * (i * 7 % 11)}
        | ({"image": f"{i % 80}.png"} if i % 5 else {})
        for i in range(80)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "questions.jsonl").write_text(text)
    (folder / "easy").mkdir()
    (folder / "easy/questions.jsonl").write_text(text)
    (folder / "easy/annotations.json").write_text(json.dumps({str(i): ("yes", "red")[i % 2] for i in range(80)}))
    answers = [{"question_id": i, "text": ("yes", "no", "red")[i % 3]} for i in range(80)]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    asked = folder / "asked"
    asked.mkdir()
    rows = [{"question_id": i, "text": "What?", "image": f"{i % 8}.png"} for i in range(20)]
    for name in ("questions_1200", "questions_wrong_image"):
        (asked / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    truths = {str(i): ("yes", "red", "circle")[i % 3] for i in range(20)}
    (asked / "annotations.json").write_text(json.dumps(truths))
    blind = {"all": 0.5, "shape": 0.5, "colour": 0.5, "yes_no": 0.5, "questions": 20}
    (asked / "blind.json").write_text(json.dumps({"sample": blind, "test": blind}))
    (folder / "text.txt").write_text("the red line is at the top of the circle " * 60)
    for name in ("textvqa", "gqa", "refcocog", "ocrvqa"):
        MAKERS[name](folder / name)


def _make_quickstart(folder, made, tiny, python):
    """The quickstart's tree: its scripts with few steps and samples, and tiny models in the places of its own."""
    for name in ("llava", "bunny", "visual_region", "llava_plugins", "constraints.txt", "setup.py"):
        (folder / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / "scripts", folder / "scripts")
    script = folder / "scripts/quickstart.sh"
    text = script.read_text()
    for old, new in SMALLER.items():
        text, count = re.subn(old, new, text)
        assert count, old
    script.write_text(text)
    playground = folder / "playground"
    for name, target in (
        ("embedded", REPOSITORY / "playground/embedded"),
        ("requirements.txt", REPOSITORY / "playground/requirements.txt"),
        ("models/SmolLM2-135M-Instruct", tiny.llm),
        ("models/efficientnet-lite0-128", tiny.tower),
        ("data/easy_vqa/images", tiny.images),
        ("data/easy_vqa/finetune.json", tiny.data),
        ("data/easy_vqa/pretrain.json", tiny.captions),
    ):
        (playground / name).parent.mkdir(parents=True, exist_ok=True)
        (playground / name).symlink_to(target)
    shutil.copytree(made / "asked", playground / "data/eval/easy_vqa")
    (folder / "venv/bin").mkdir(parents=True)
    (folder / "venv/bin/python").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    (folder / "venv/bin/python").chmod(0o755)
    wanted = b"".join((folder / name).read_bytes() for name in REQUIREMENTS)
    (folder / "venv/installed").write_text(f"{hashlib.sha256(wanted).hexdigest()}  -\n")


STUDY = """
out: out
model: {llm}
tower: {tower}
environment: {{BF16: False, DEEPSPEED: "", CHECKPOINTING: False, WORKERS: 0, MAX_LENGTH: 256, BATCH: 2, SAVE_STEPS: 2}}
stages:
  pretrain:
    command: bash scripts/train/pretrain.sh
    environment: {{DATA: {captions}, IMAGES: {images}, STEPS: 2, OUTPUT: "{{stages}}/pretrain"}}
train:
  script: scripts/train/finetune_lora.sh
  environment: {{DATA: {data}, IMAGES: {images}, STEPS: 4, LORA_R: 4, LORA_ALPHA: 8,
    PROJECTOR: "{{stages}}/pretrain/mm_projector.bin"}}
rows: {{all: all, bi: "{{scores}}#bi:2"}}
scores_of: all
experiments: {{selections: {{rows: [all, bi]}}}}
evaluate: {{columns: [easy_vqa], flags: --max_new_tokens 8 --batch-size 4}}
score: --data-path {data} --image-folder {images} --samples 8 --batch-size 2 --resamples 50
keep_weights: false
"""


def _make_study(folder, made, tiny):
    """A study of two cells, one of which needs the scores of the other."""
    for name in ("llava", "bunny", "visual_region", "llava_plugins", "scripts"):
        (folder / name).symlink_to(REPOSITORY / name)
    shutil.copytree(made / "easy", folder / "playground/data/eval/easy_vqa")
    (folder / "playground/data/easy_vqa").mkdir(parents=True)
    (folder / "playground/data/easy_vqa/images").symlink_to(made / "images")
    places = {"llm": tiny.llm, "tower": tiny.tower, "data": tiny.data, "captions": tiny.captions, "images": tiny.images}
    (folder / "plan.yaml").write_text(STUDY.format(**places))


NAMES = [
    *("lora", "full", "projector", "cached", "evaluate", "evaluate-2", "features", "benchmark", "score-answers"),
    *("perplexity", "score", "curve", "prune", "prune-lora", "prune-base", "prune-block", "revert", "export"),
    *("prepare-textvqa", "prepare-gqa", "prepare-refcocog", "prepare-ocrvqa", "quickstart", "playground", "study"),
]
SHORT = ("evaluate", "score", "prune-lora", "prepare-textvqa")


LONG = pytest.mark.skipif("KILLS" not in os.environ, reason="takes minutes: python tests/kills.py kills all programs")


@pytest.mark.parametrize("name", [name if name in SHORT else pytest.param(name, marks=LONG) for name in NAMES])
def test_killed_and_run_again(cases, name, tmp_path, start, python):
    count = kill_many(cases[name], tmp_path, start, python, KILLS, f"{SEED} {name}")
    print(f"{name}: {count}")
