"""Programs that are killed at random moments and run again write what an uninterrupted run writes, and leave nothing.

Two kills each; `python tests/kills.py --kills 20` makes more, of all programs.
"""

import json
import os
import shutil

import pytest

from tests.kills import Case, kill_many
from tests.made_benchmarks import MAKERS

KILLS, SEED = int(os.environ.get("KILLS", 2)), os.environ.get("KILL_SEED", 0)
SAVED = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
LORA = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "tune_layers": "0,3"}


@pytest.fixture(scope="session")
def cases(tiny, tiny_llava, tiny_lora, train_flags, made_once):
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
        "score": Case([region, "score", *model, *scored, "--samples", "all", "--backbone", tiny.llm, "--output", "s.json"]),
        "prune": Case([region, "prune", *model, "--layers", "1", "--output", "out"]),
        "prune-lora": Case([region, "prune", "--model-path", tiny_lora, "--layers", "1", "--output", "out"]),
        "prune-base": Case(
            [region, "prune", "--model-path", tiny_lora, "--layers", "1", "--output", "out", "--base-output", "base"],
        ),
        "prune-block": Case(
            [region, "prune", *model, *scored[:-2], "--samples", "8", "--block", 2, "--anywhere", "--block-scores", "b.json",
             "--output", "out"],
        ),
        "revert": Case([region, "revert", *model, "--backbone", tiny.llm, "--layers", "0", "--output", "out"]),
        "export": Case([region, "export", *model, "--output", "out"]),
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
    (folder / "text.txt").write_text("the red line is at the top of the circle " * 60)
    for name in ("textvqa", "gqa", "refcocog", "ocrvqa"):
        MAKERS[name](folder / name)


NAMES = [
    *("lora", "full", "projector", "cached", "evaluate", "evaluate-2", "features", "benchmark", "score-answers"),
    *("perplexity", "score", "prune", "prune-lora", "prune-base", "prune-block", "revert", "export"),
    *("prepare-textvqa", "prepare-gqa", "prepare-refcocog", "prepare-ocrvqa"),
]


@pytest.mark.parametrize("name", NAMES)
def test_killed_and_run_again(cases, name, tmp_path, start, python):
    count = kill_many(cases[name], tmp_path, start, python, KILLS, f"{SEED} {name}")
    print(f"{name}: {count}")
