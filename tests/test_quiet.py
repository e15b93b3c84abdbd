"""Programs print no warning that a user can do nothing about, and numbers as numbers."""

import ast
import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

NOISE = ("warning", "deprecated", "real_accelerator", "requires torchvision", "new PAD/BOS/EOS")
ONE_AFTER_ANOTHER = """
import json, runpy, sys
for module, *flags in json.loads(sys.argv[1]):
    print("==", module, flush=True)
    sys.argv = [module, *flags]
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, stop.code
"""


@pytest.fixture(scope="module")
def printed(tiny, tiny_llava, train_flags, tmp_path_factory):
    """What programs print in a process of their own, which imports everything itself."""
    root = tmp_path_factory.mktemp("quiet")
    (root / "q.jsonl").write_text('{"question_id": 1, "image": "0.png", "text": "What is it?"}\n')
    lora = {"lora_enable": True, "gradient_checkpointing": True, "gradient_accumulation_steps": 1}
    images, model = f"--image-folder {tiny.images}", f"--model-path {tiny_llava}"
    programs = [
        ["visual_region", "export", "--help"],
        ["llava.train.train", *train_flags(root / "lora", max_steps=2, disable_tqdm=None, **lora)],
        ["llava.train.train", *train_flags(root / "full", max_steps=1)],
        f"visual_region export {model} --output {root}/stock".split(),
        f"visual_region prune --model-path {root}/lora --layers 1 --anywhere --output {root}/pruned".split(),
        f"visual_region score {model} --data-path {tiny.data} {images} --samples 2 --output {root}/s.json".split(),
        f"llava.eval.model_vqa_loader {model} {images} --question-file {root}/q.jsonl --answers-file {root}/a.jsonl "
        "--max_new_tokens 2 --device cpu".split(),
    ]
    words = json.dumps(programs)
    command = [sys.executable, "-c", ONE_AFTER_ANOTHER, words]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run


def test_no_warning_that_nobody_can_act_on(printed):
    lines = [*printed.stdout.splitlines(), *printed.stderr.splitlines()]
    assert len([line for line in lines if line.startswith("==")]) == 7
    assert [line for line in lines if any(word.lower() in line.lower() for word in NOISE)] == []


def test_losses_are_numbers(printed):
    """With a progress bar (the first training) and without one."""
    logged = [ast.literal_eval(line) for line in printed.stdout.splitlines() if line.startswith("{")]
    assert len(logged) == 2 + 1 + 1 + 1, "steps and a summary of both trainings"
    assert all(isinstance(value, (int, float)) for line in logged for value in line.values())
    assert [sorted(line)[:2] for line in logged].count(["epoch", "grad_norm"]) == 3
