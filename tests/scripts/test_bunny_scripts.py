"""Bunny's training scripts expand to commands whose flags parse, with the values of its recipes."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from bunny.train.arguments import ARGUMENTS
from llava.train.arguments import parse_arguments

ROOT = Path(__file__).parents[2]


def dry_run(*command, **variables):
    """Model, data and training arguments and the DeepSpeed file of the command that a script would run."""
    known = {"PATH", "HOME", "PYTHONPATH", "OMP_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name in known} | {"DRY_RUN": "1"} | variables
    script, *rest = command
    result = subprocess.run(
        ["bash", f"scripts/train/bunny/{script}", *rest], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    words = shlex.split(result.stdout.splitlines()[-1])
    flags = words[words.index("bunny/train/train.py") + 1 :]
    zero = None
    if "--deepspeed" in flags:
        # Parsing the flag would start DeepSpeed in the process of the tests.
        place = flags.index("--deepspeed")
        zero = flags[place + 1]
        del flags[place : place + 2]
    return *parse_arguments(flags, ARGUMENTS), zero


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("pretrain.sh", (5e-4, 8, 4, 24000, "plain", False, None, 2)),
        ("finetune_lora.sh", (2e-4, 8, 2, 500, "bunny", True, "sparse-uniform:25%", "auto")),
        ("finetune_full.sh", (2e-5, 8, 2, 500, "bunny", False, "sparse-uniform:25%", 3)),
    ],
)
def test_upstreams_values(script, expected, tmp_path):
    output = str(tmp_path / "a b")
    model, data, training, zero = dry_run(script, "--seed", "3", TUNE_LAYERS="sparse-uniform:25%", OUTPUT=output)
    rate, batch, accumulation, save_steps, version, lora, layers, stage = expected
    assert zero == (stage if stage == "auto" else f"./scripts/zero{stage}.json")
    assert (training.learning_rate, training.per_device_train_batch_size) == (rate, batch)
    assert (training.gradient_accumulation_steps, training.save_steps) == (accumulation, save_steps)
    assert (model.version, training.lora_enable, model.tune_layers) == (version, lora, layers)
    assert (model.model_type, model.mm_projector_type, training.output_dir) == ("phi-2", "mlp2x_gelu", output)
    assert (training.seed, training.model_max_length) == (3, 2048)
    assert data.image_aspect_ratio == ("square" if version == "plain" else "pad")
    assert not training.group_by_modality_length
    if lora:
        assert (training.lora_r, training.lora_alpha, training.mm_projector_lr) == (128, 256, 2e-5)


@pytest.mark.parametrize(
    ("model", "stage", "expected"),
    [
        ("llama3-8b", "pretrain", (1e-3, None, 8, 4, 2048, False, False, "plain")),
        ("llama3-8b", "recipe1", (2e-4, 2e-5, 8, 2, 2048, False, False, "llama")),
        ("llama3-8b", "recipe2", (1e-4, 1e-5, 8, 2, 2048, False, True, "llama")),
        ("phi-3", "pretrain", (1e-3, None, 8, 4, 2048, False, False, "plain")),
        ("phi-3", "recipe1", (2e-4, 2e-5, 4, 4, 4096, False, False, "phi3")),
        ("phi-3", "recipe2", (2e-4, 2e-5, 4, 4, 4096, False, True, "phi3")),
        ("llama3-8b-s2", "pretrain", (1e-3, None, 8, 4, 2048, True, False, "plain")),
        ("llama3-8b-s2", "recipe1", (1e-4, 1e-5, 4, 4, 4096, True, False, "llama")),
        ("phi-3-s2", "recipe2", (2e-4, 2e-5, 4, 4, 4096, True, True, "phi3")),
    ],
)
def test_recipes(model, stage, expected):
    arguments, data, training, zero = dry_run("recipe.sh", model, stage)
    default = {"llama3-8b-s2": "./scripts/zero3.json"}.get(model, "./scripts/zero2.json")
    assert zero == (default if stage == "pretrain" else "auto")
    rate, projector_rate, batch, accumulation, length, s2, tower, version = expected
    assert (training.learning_rate, training.mm_projector_lr) == (rate, projector_rate)
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (batch, accumulation)
    assert (training.model_max_length, arguments.use_s2, arguments.unfreeze_vision_tower) == (length, s2, tower)
    assert arguments.version == version
    assert arguments.model_type == model.removesuffix("-s2")
    if stage != "pretrain":
        assert training.lora_r == (256 if model == "llama3-8b-s2" else 128)
        assert f"bunny-{model}-pretrain" in arguments.pretrain_mm_mlp_adapter
        names = {"recipe1": ("695k", "allava_1.3m"), "recipe2": ("llava_1.4m", "llava_allava_2m")}[stage]
        assert names[s2] in data.data_path


def test_what_is_set_outside_wins():
    settings = {"LR": "5e-5", "TUNE_LAYERS": "0-7", "MODEL": "/my/phi", "DEEPSPEED": ""}
    model, _, training, zero = dry_run("recipe.sh", "phi-3", "recipe1", **settings)
    assert zero is None
    assert (training.learning_rate, model.tune_layers, model.model_name_or_path) == (5e-5, "0-7", "/my/phi")


def test_what_is_empty_is_not_set():
    model, _, training, _ = dry_run("recipe.sh", "llama3-8b-s2", "recipe1", LR="", USE_S2="", MAX_LENGTH="")
    assert (training.learning_rate, model.use_s2, training.model_max_length) == (1e-4, True, 4096)


@pytest.mark.parametrize("words", [["finetune_lora.sh"], ["finetune_full.sh"], ["recipe.sh", "llama3-8b", "recipe1"]])
def test_a_bunny_that_is_trained_further_has_its_projector(words):
    assert dry_run(*words, PROJECTOR="", MODEL="/my/bunny")[0].pretrain_mm_mlp_adapter is None
    assert dry_run(*words)[0].pretrain_mm_mlp_adapter.endswith("mm_projector.bin")


def test_unknown_recipe():
    command = ["bash", "scripts/train/bunny/recipe.sh", "phi-4", "recipe1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "llama3-8b" in result.stderr
