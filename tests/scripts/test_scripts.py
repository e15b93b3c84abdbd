"""Every training and evaluation script expands to commands whose flags parse, with upstream's values."""

import argparse
import json
import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bunny.train.arguments import ARGUMENTS as BUNNY_ARGUMENTS
from llava.train.arguments import parse_arguments

ROOT = Path(__file__).parents[2]
DEMONSTRATIONS = {"quickstart_real_run.sh"}
"""Many steps with results between them; they have no dry run."""
TRAIN = sorted(path for path in (ROOT / "scripts/train").rglob("*.sh") if path.name != "common.sh")
NO_SCRIPTS = {"benchmark.sh", *DEMONSTRATIONS}
EVAL = sorted(path for path in (ROOT / "scripts/eval").glob("*.sh") if path.name not in NO_SCRIPTS)
WORDS = {"recipe.sh": ["phi-3", "recipe1"], "compare.sh": ["one", "two"]}
TRAINERS = {"llava/train/train_mem.py": (), "bunny/train/train.py": (BUNNY_ARGUMENTS,)}


def dry_run(script, *flags, **settings):
    """The commands that a script would run, whatever settings the test itself runs under."""
    # One that does not know the word would really train, or install packages.
    text = (ROOT / script).read_text()
    knows = ("DRY_RUN", "/common.sh", "/benchmark.sh", 'exec bash "$(dirname "$0")')
    assert any(word in text for word in knows), f"{script} has no dry run"
    known = {"PATH", "HOME", "PYTHONPATH", "OMP_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name in known} | {"DRY_RUN": "1"}
    command = ["bash", str(script), *map(str, flags)]
    result = subprocess.run(command, cwd=ROOT, env=environment | settings, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [shlex.split(line) for line in result.stdout.splitlines()]


def parsed(words):
    """(model, data, training arguments, DeepSpeed file) of a training command; a started DeepSpeed has no way back."""
    program = next(word for word in words if word in TRAINERS)
    flags = words[words.index(program) + 1 :]
    zero = None
    if "--deepspeed" in flags:
        place = flags.index("--deepspeed")
        zero = flags[place + 1]
        del flags[place : place + 2]
    return *parse_arguments(flags, *TRAINERS[program]), zero


@pytest.mark.parametrize("script", TRAIN, ids=lambda path: str(path.relative_to(ROOT / "scripts/train")))
def test_training_scripts_parse(script, tmp_path):
    output = str(tmp_path / "a b")
    words = dry_run(
        script, *WORDS.get(script.name, []), "--seed", "3", OUTPUT=output, TUNE_LAYERS="sparse-uniform:25%"
    )[-1]
    model, _, training, zero = parsed(words)
    assert training.output_dir == output
    assert training.seed == 3
    assert model.tune_layers == (None if model.tune_mm_mlp_adapter else "sparse-uniform:25%")
    assert zero in (None, "auto") or json.loads((ROOT / zero).read_text())["zero_optimization"]["stage"] in (2, 3)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("script", EVAL, ids=lambda path: path.name)
def test_evaluation_scripts_parse(script, monkeypatch):
    class Parsed(Exception):
        pass

    original = argparse.ArgumentParser.parse_known_args

    def stop(self, args=None, namespace=None):
        _, unknown = original(self, args, namespace)
        assert not unknown
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    commands = dry_run(script, *WORDS.get(script.name, ["checkpoint"]), PYTHON=sys.executable)
    assert commands
    for words in commands:
        assert words[1] == "-m"
        monkeypatch.setattr(sys, "argv", words[2:])
        with pytest.raises(Parsed):
            runpy.run_module(words[2], run_name="__main__")


CLIP = "openai/clip-vit-large-patch14-336"
PROJECTOR = "./checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin"
PRETRAIN = {
    "model_name_or_path": "lmsys/vicuna-13b-v1.5",
    "version": "plain",
    "data_path": "./playground/data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json",
    "image_folder": "./playground/data/LLaVA-Pretrain/images",
    "vision_tower": CLIP,
    "mm_projector_type": "mlp2x_gelu",
    "tune_mm_mlp_adapter": True,
    "pretrain_mm_mlp_adapter": None,
    "image_aspect_ratio": "square",
    "group_by_modality_length": False,
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-3,
    "save_steps": 24000,
    "lora_enable": False,
    "mm_projector_lr": None,
    "output_dir": "./checkpoints/llava-v1.5-13b-pretrain",
}
FINETUNE = PRETRAIN | {
    "version": "v1",
    "data_path": "./playground/data/llava_v1_5_mix665k.json",
    "image_folder": "./playground/data",
    "tune_mm_mlp_adapter": False,
    "pretrain_mm_mlp_adapter": PROJECTOR,
    "image_aspect_ratio": "pad",
    "group_by_modality_length": True,
    "per_device_train_batch_size": 16,
    "learning_rate": 2e-5,
    "save_steps": 50000,
    "output_dir": "./checkpoints/llava-v1.5-13b",
}
LORA = {"lora_enable": True, "lora_r": 128, "lora_alpha": 256, "mm_projector_lr": 2e-5, "learning_rate": 2e-4}
TASK = {"model_name_or_path": "liuhaotian/llava-v1.5-13b", "pretrain_mm_mlp_adapter": None}
UPSTREAM = {
    "pretrain": ("./scripts/zero2.json", PRETRAIN),
    "finetune": ("./scripts/zero3.json", FINETUNE),
    # Not upstream's: LoRA is sharded only as far as the memory asks for.
    "finetune_lora": ("auto", FINETUNE | LORA | {"output_dir": "./checkpoints/llava-v1.5-13b-lora"}),
    "finetune_task": ("./scripts/zero3.json", FINETUNE | TASK | {"output_dir": "./checkpoints/llava-v1.5-13b-task"}),
    "finetune_task_lora": ("auto", FINETUNE | LORA | TASK | {"output_dir": "./checkpoints/llava-v1.5-13b-task-lora"}),
    "finetune_qlora": (
        "auto",
        FINETUNE
        | {
            "model_name_or_path": "./checkpoints/vicuna-v1-3-7b",
            "pretrain_mm_mlp_adapter": "./checkpoints/llava-vicuna-v1-3-7b-pretrain/mm_projector.bin",
            "data_path": "./playground/data/llava_instruct_80k.json",
            "image_folder": "./playground/data/coco/train2017",
            "vision_tower": "openai/clip-vit-large-patch14",
            "mm_projector_type": "linear",
            "image_aspect_ratio": "square",
            "group_by_modality_length": False,
            "lora_enable": True,
            "lora_r": 64,
            "lora_alpha": 16,
            "bits": 4,
            "quant_type": "nf4",
            "double_quant": True,
            "output_dir": "./checkpoints/llava-vicuna-v1-3-7b-finetune_lora",
        },
    ),
}
EVERYWHERE = {
    "mm_vision_select_layer": -2,
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "num_train_epochs": 1,
    "per_device_eval_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "eval_strategy": "no",
    "save_strategy": "steps",
    "save_total_limit": 1,
    "weight_decay": 0,
    "warmup_steps": 0.03,
    "lr_scheduler_type": "cosine",
    "logging_steps": 1,
    # Not upstream's: as few layers are recomputed as the memory allows.
    "chooses_recomputation": True,
    "dataloader_num_workers": 4,
    "lazy_preprocess": True,
    "model_max_length": 2048,
    "bf16": True,
    # Not upstream's: nothing is reported unasked.
    "report_to": [],
}


@pytest.mark.parametrize("script", UPSTREAM)
def test_upstreams_values(script):
    """The values of upstream's scripts/v1_5/*.sh and scripts/finetune_qlora.sh."""
    config, expected = UPSTREAM[script]
    *arguments, zero = parsed(dry_run(f"scripts/train/{script}.sh")[-1])
    assert zero == config
    for name, value in (EVERYWHERE | expected).items():
        holder = next(part for part in arguments if hasattr(part, name))
        assert getattr(holder, name) == value, name


def test_launching():
    """One process, one machine, several machines; DeepSpeed or not; 7B."""
    script = "scripts/train/finetune_lora.sh"
    alone = dry_run(script, GPUS="1", DEEPSPEED="", SIZE="7b", MODEL="/my model")[-1]
    assert alone[:2] == ["python", "llava/train/train_mem.py"]
    assert "--deepspeed" not in alone
    model, _, training, _ = parsed(alone)
    assert (model.model_name_or_path, training.output_dir) == ("/my model", "./checkpoints/llava-v1.5-7b-lora")
    eight = dry_run(script, GPUS="8", DEEPSPEED="./scripts/zero3_offload.json")[-1]
    assert eight[1:6] == ["-m", "llava.train.launch", "--standalone", "--nproc_per_node", "8"]
    assert parsed(eight)[-1] == "./scripts/zero3_offload.json"
    # A flag of the user is the last one, which counts.
    assert dry_run(script, "--deepspeed", "mine.json", GPUS="1")[-1][-2:] == ["--deepspeed", "mine.json"]
    many = dry_run(script, GPUS="8", NNODES="2", NODE_RANK="1", MASTER_ADDR="10.0.0.1")[-1]
    expected = "--nnodes 2 --nproc_per_node 8 --node_rank 1 --master_addr 10.0.0.1 --master_port 29500"
    assert " ".join(many[3:13]) == expected
    incomplete = subprocess.run(
        ["bash", script], cwd=ROOT, env=os.environ | {"DRY_RUN": "1", "NNODES": "2"}, capture_output=True, text=True
    )
    assert incomplete.returncode
    assert "NNODES=2 needs NODE_RANK" in incomplete.stderr


@pytest.mark.parametrize(("group", "value"), [("staff", "True"), ("domain users", "True"), ("False", "False")])
def test_tcshs_group_is_no_setting(tmp_path, group, value):
    """tcsh puts the user's Unix group into GROUP."""
    program = tmp_path / "id"
    program.write_text("#!/bin/sh\necho staff domain users\n")
    program.chmod(0o755)
    words = dry_run("scripts/train/finetune_lora.sh", PATH=f"{tmp_path}:{os.environ['PATH']}", GROUP=group)[-1]
    assert words[words.index("--group_by_modality_length") + 1] == value


@pytest.mark.parametrize(
    ("visible", "processes"), [(None, 8), ("0,1", 2), ("GPU-8932f937,MIG-7a,", 2), ("3", 1), ("", 0), ("-1", 0)]
)
def test_a_process_for_each_visible_gpu(tmp_path, visible, processes):
    """nvidia-smi lists all GPUs, whatever is visible, and the parts of those that are divided."""
    lines = [f"GPU {i}: NVIDIA A100 (UUID: GPU-{i})" for i in range(8)] + ["  MIG 3g.20gb Device 0: (UUID: MIG-7a)"]
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\ncat <<END\n" + "\n".join(lines) + "\nEND\n")
    program.chmod(0o755)
    settings = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DEEPSPEED": ""}
    settings |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    words = dry_run("scripts/train/finetune_lora.sh", **settings)[-1]
    if processes > 1:
        assert words[1:6] == ["-m", "llava.train.launch", "--standalone", "--nproc_per_node", str(processes)]
    else:
        assert words[1] == "llava/train/train_mem.py"


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").rglob("*.sh")), ids=lambda p: str(p.relative_to(ROOT)))
def test_syntax(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("settings", [{"GPUS": "0,1"}, {"GPUS": "all"}, {"NNODES": "two"}, {"NNODES": "0"}])
def test_numbers_of_processes_that_are_none(settings):
    """bash would go on with one process, and so with a smaller batch than the recipe's."""
    environment = os.environ | {"DRY_RUN": "1"} | settings
    command = ["bash", "scripts/train/finetune_lora.sh"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert "give numbers; CUDA_VISIBLE_DEVICES=0,1 chooses GPUs" in result.stderr


@pytest.mark.parametrize("script", ["train/pretrain.sh", "eval/all.sh", "eval/compare.sh", "eval/gqa.sh"])
def test_a_python_with_blanks_and_another_llava_on_the_path(script, tmp_path):
    python, other = tmp_path / "a b" / "python", tmp_path / "other"
    python.parent.mkdir()
    python.write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    (other / "llava").mkdir(parents=True)
    (other / "llava/__init__.py").write_text("raise ImportError('the wrong package')")
    environment = os.environ | {"PYTHON": str(python), "PYTHONPATH": str(other), "GPUS": "0"}
    words = ["--help"] if script != "eval/gqa.sh" else ["checkpoint", "--help"]
    command = ["bash", f"scripts/{script}", *words]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout
