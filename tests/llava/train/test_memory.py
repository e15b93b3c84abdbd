"""What free memory decides: which layers are recomputed, how far a run is sharded, and what to do without memory."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
import transformers

from llava.train.arguments import TrainingArguments, parse_arguments
from llava.train.flag_names import HUGE_PAGES
from llava.train.llava_trainer import LLaVATrainer
from llava.train.memory import _largest_batch, choose_sharding, step_memory
from llava.train.plan import make_plan
from llava.train.train import train
from llava.train.zero import ZeroConfigError, config_of_stage
from tests.conftest import REPOSITORY
from visual_region.memory import USABLE, StepMemory

LORA = {"lora_enable": True, "lora_dropout": 0, "tune_layers": "0,3"}


def losses(output):
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.fixture
def free(monkeypatch):
    def set_free(nbytes):
        monkeypatch.setattr("llava.train.memory.free_memory", lambda device: nbytes)

    return set_free


def test_the_losses_stay(train_flags, tmp_path, free, capsys, monkeypatch):
    estimates, original = [], StepMemory.fewest_recomputed

    def spy(self, nbytes):
        estimates.append(self)
        return original(self, nbytes)

    monkeypatch.setattr(StepMemory, "fewest_recomputed", spy)
    train(argv=train_flags(tmp_path / "plain", **LORA, gradient_checkpointing=False))
    wanted = losses(tmp_path / "plain")
    # Enough for everything, for nothing, and for half of the layers.
    said = []
    for name in ("everything", "nothing", "half"):
        half = estimates and estimates[0].needed(estimates[0].recomputable()[:3]) / USABLE + 1
        free({"everything": 1 << 40, "nothing": 1, "half": half}[name])
        capsys.readouterr()
        train(argv=train_flags(tmp_path / name, **LORA, gradient_checkpointing="auto"))
        said.append(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("gradient check")))
        assert losses(tmp_path / name) == pytest.approx(wanted, rel=1e-5)
    everything, nothing, half = said
    assert "no layer; a step takes about " in everything
    assert "6 of 6 layers" in nothing
    assert "may not fit: use a smaller --per_device_train_batch_size" in nothing
    assert "3 of 6 layers" in half
    assert "MB without), cpu has" in half


@pytest.mark.parametrize("mode", ["projector", "full"])
def test_other_modes(tiny, train_flags, tmp_path, free, mode):
    changes = (
        {"tune_mm_mlp_adapter": True, "version": "plain", "data_path": tiny.captions} if mode == "projector" else {}
    )
    results = []
    for choice in (False, "auto"):
        free(1)
        output = tmp_path / str(choice)
        train(argv=train_flags(output, gradient_checkpointing=choice, **changes))
        results.append(losses(output))
    assert results[1] == pytest.approx(results[0], rel=1e-5)


def test_the_largest_batch_is_the_longest_samples(train_flags, tmp_path, monkeypatch):
    """Its tokens are those of the rows that the model sees."""
    seen, found = [], []
    original = LLaVATrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        patches = model.get_base_model().image_tokens
        rows = inputs["attention_mask"].sum(1) + (inputs["input_ids"] == -200).sum(1) * (patches - 1)
        seen.extend(rows.tolist())
        return original(self, model, inputs, *args, **kwargs)

    def keep(*args):
        found.append(_largest_batch(*args))
        return found[-1]

    monkeypatch.setattr(LLaVATrainer, "compute_loss", spy)
    monkeypatch.setattr("llava.train.memory._largest_batch", keep)
    flags = train_flags(tmp_path / "out", **LORA, gradient_checkpointing="auto", num_train_epochs=1, max_steps=-1)
    train(argv=flags)
    text, image, labels = found[0]
    longest = sum(sorted(seen)[-3:])
    assert longest <= 3 * (text + image) < longest + 3
    assert 0 < labels < text


@pytest.mark.parametrize(("device", "bf16"), [("cuda", True), ("cuda", False), ("cpu", True)])
def test_the_estimate_knows_autocast(train_flags, tmp_path, monkeypatch, device, bf16):
    model, data, training = parse_arguments(train_flags(tmp_path / "out", **LORA, bf16=bf16))
    plan = make_plan(model, data, training)
    monkeypatch.setattr(TrainingArguments, "device", torch.device(device))
    assert step_memory(plan, data, training).recipe.cuda_autocast == (device == "cuda" and bf16)


def test_what_to_do_when_memory_runs_out(train_flags, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(LLaVATrainer, "compute_loss", fail)
    with pytest.raises(SystemExit) as stop:
        train(argv=train_flags(tmp_path / "out", **LORA, gradient_checkpointing="auto", per_device_train_batch_size=4))
    text = str(stop.value)
    assert "memory ran out" in text
    assert "--gradient_checkpointing True (now 0 of 6 layers are recomputed)" in text
    assert "--per_device_train_batch_size 2 --gradient_accumulation_steps 2" in text
    assert "--bits 4" in text


def test_memory_that_runs_out_while_the_model_is_moved(train_flags, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 26.00 GiB")

    monkeypatch.setattr(LLaVATrainer, "__init__", fail)
    with pytest.raises(SystemExit, match="memory ran out; what helps:"):
        train(argv=train_flags(tmp_path / "out", **LORA))


def test_one_process_uses_one_gpu(train_flags, tmp_path, monkeypatch, capsys):
    """transformers would divide batches among all GPUs by DataParallel, which cuts rows and images apart."""
    original = transformers.TrainingArguments.__post_init__

    def with_two(self):
        original(self)
        self._n_gpu = 2

    monkeypatch.setattr(transformers.TrainingArguments, "__post_init__", with_two)
    training = parse_arguments(train_flags(tmp_path / "out"))[2]
    assert (training.n_gpu, training.train_batch_size) == (1, 3)
    assert "one of 2 GPUs is used: GPUS=2 before a script" in capsys.readouterr().err


def test_another_word(train_flags, tmp_path):
    with pytest.raises(SystemExit, match="--gradient_checkpointing maybe; allowed: True, False, auto"):
        train(argv=train_flags(tmp_path / "out", **LORA, gradient_checkpointing="maybe"))


PROCESSES = 4


@pytest.fixture
def sharding(train_flags, tmp_path, monkeypatch, free):
    """What `--deepspeed auto` chooses, by the memory that each of the processes finds free; and the estimate."""

    def choices(processes=PROCESSES, **flags):
        model, data, training = parse_arguments(train_flags(tmp_path / "out", deepspeed="auto", **flags))
        plan = make_plan(model, data, training)
        monkeypatch.setattr(TrainingArguments, "world_size", processes)
        memory = step_memory(plan, data, training)
        monkeypatch.setattr("llava.train.memory.step_memory", lambda *arguments: memory)

        def choose(nbytes):
            free(nbytes)
            return choose_sharding(plan, data, training)

        return choose, memory

    return choices


@pytest.mark.parametrize(
    ("mode", "checkpointing"), [("lora", "auto"), ("lora", False), ("full", True), ("projector", False)]
)
def test_a_run_is_sharded_only_as_far_as_it_must_be(tiny, sharding, mode, checkpointing):
    flags = {
        "lora": LORA,
        "full": {"tune_layers": "1,4"},
        "projector": {"tune_mm_mlp_adapter": True, "version": "plain", "data_path": tiny.captions},
    }[mode]
    choose, memory = sharding(**flags, gradient_checkpointing=checkpointing)
    assert memory.ranks == PROCESSES
    plenty = choose(1 << 40)
    assert plenty.stage is None
    assert plenty.line.startswith("deepspeed: none; a step takes about ")
    recomputed = memory.recomputable() if checkpointing else ()
    ddp, two = (dataclasses.replace(memory, zero_stage=stage).needed(recomputed) / USABLE for stage in (0, 2))
    for free, stage in ((ddp + 1, None), (ddp - 2, 2), (two + 1, 2), (two - 2, 3)):
        assert choose(free).stage == stage
    nothing = choose(1)
    assert nothing.stage == 3
    assert "without), cpu has" in nothing.line
    assert "may not fit: --deepspeed ./scripts/zero3_offload.json" in nothing.line


@pytest.mark.parametrize(
    ("flags", "stages"),
    [
        ({"processes": 1}, (None, None)),
        ({"bits": 4}, (None, 2)),
        ({"unfreeze_vision_tower": True}, (3, 3)),
        ({"bits": 4, "unfreeze_vision_tower": True}, (2, 2)),
        ({"kernels": "compile"}, (None, 2)),
    ],
)
def test_what_the_estimate_does_not_decide(sharding, flags, stages, monkeypatch):
    """A single process shards nothing; ZeRO-3 takes no quantised weights and no compiled layers; towers are unknown."""
    monkeypatch.setattr("llava.model.kernels.why_not_compile", lambda *arguments: None)
    choose, _ = sharding(**LORA, **flags)
    assert tuple(choose(nbytes).stage for nbytes in (1 << 40, 1)) == stages


def test_without_the_package(train_flags, tmp_path, free, monkeypatch, capsys):
    """DeepSpeed is needed only if it is chosen, and then one error says what to install."""
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "deepspeed" else found(name))
    free(1)
    flags = LORA | {"max_steps": 1, "deepspeed": "auto"}
    with pytest.raises(SystemExit, match="this run cannot start:\n- --lora_r 0 must be at least 1"):
        train(argv=train_flags(tmp_path / "wrong", **flags, lora_r=0))
    train(argv=train_flags(tmp_path / "alone", **flags))
    assert "deepspeed: none (a single process)" in capsys.readouterr().out
    with pytest.raises(ZeroConfigError, match="pip install"):
        parse_arguments(train_flags(tmp_path / "out", **flags))[2].with_deepspeed(config_of_stage(2))


@pytest.mark.parametrize(("before", "after"), [({}, "1"), ({HUGE_PAGES: "0"}, "0")])
def test_huge_pages_are_asked_for_before_torch_is_imported(before, after):
    """Torch reads the variable once."""
    code = """
import os, sys
sys.modules["torch"] = None  # Its import fails.
from llava.train.train import train
try:
    train(argv=[])
except ImportError:
    print(os.environ[sys.argv[1]])
"""
    unset = {name: value for name, value in os.environ.items() if name != HUGE_PAGES}
    command = [sys.executable, "-c", code, HUGE_PAGES]
    done = subprocess.run(command, env=unset | before, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.split() == [after], done.stderr
