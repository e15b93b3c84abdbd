"""A training whose numbers are not finite any more ends with one message, and writes nothing."""

import contextlib
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer

from llava.train.diverged import PATIENCE, DivergedError, FiniteCheck
from llava.train.llava_trainer import LLaVATrainer
from llava.train.train import train


@pytest.fixture
def broken_gradients(monkeypatch):
    """The gradients of the projector are NaN."""
    original = LLaVATrainer.create_optimizer

    def create(self, *args):
        for name, parameter in self.model.named_parameters():
            if "mm_projector" in name:
                parameter.register_hook(lambda gradient: gradient * math.nan)
        return original(self, *args)

    monkeypatch.setattr(LLaVATrainer, "create_optimizer", create)


def test_broken_weights_are_not_written(broken_gradients, train_flags, tmp_path):
    """The loss of the step was finite; its update was not."""
    flags = train_flags(tmp_path / "out", warmup_ratio=0, max_steps=3, save_strategy="steps", save_steps=1)
    with pytest.raises(SystemExit, match=r"there are NaN or infinite values in .*, after step 1\."):
        train(argv=flags)
    assert not list(tmp_path.glob("out/checkpoint-*"))
    assert not (tmp_path / "out/config.json").exists()


def test_the_end_of_a_run_that_logs_and_saves_nothing(broken_gradients, train_flags, tmp_path):
    with pytest.raises(SystemExit, match="the training diverged"):
        train(argv=train_flags(tmp_path / "out", warmup_ratio=0, max_steps=1, logging_steps=500))
    assert not (tmp_path / "out/config.json").exists()


def test_a_base_with_a_broken_weight(train_flags, tiny, tmp_path, capsys):
    """It is frozen, and makes the weights that train NaN."""
    llm = shutil.copytree(tiny.llm, tmp_path / "llm")
    weights = load_file(llm / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.weight"][0, 0] = math.nan
    save_file(weights, llm / "model.safetensors", {"format": "pt"})
    flags = train_flags(tmp_path / "out", model_name_or_path=llm, lora_enable=True, lora_r=4, max_steps=3)
    with pytest.raises(SystemExit, match=r"tensors that train, such as .*, after step 1\."):
        train(argv=flags)
    assert "'loss': nan" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_at_the_end(train_flags, tmp_path, monkeypatch):
    """Its weights are, so that there is a checkpoint of the last step: no second start makes a result of it."""
    original = Trainer.training_step

    def infinite(self, *args):
        loss = original(self, *args)
        return loss * math.inf if self.state.global_step == 1 else loss

    monkeypatch.setattr(Trainer, "training_step", infinite)
    flags = train_flags(tmp_path / "out", max_steps=2, save_strategy="steps", save_steps=1)
    for _ in range(2):
        with pytest.raises(SystemExit, match=r"the loss has not been finite from step 2 on, after step 2\."):
            train(argv=flags)
        assert (tmp_path / "out/checkpoint-2").is_dir()
        assert not (tmp_path / "out/config.json").exists()


def test_steps_that_are_skipped():
    """As in float16: the weights stay finite."""
    model = nn.Linear(2, 2)
    check = FiniteCheck(model)
    for step in range(1, 3 * PATIENCE):
        check.loss(1.0 if step % 2 else math.nan, step)
    check.end(step)
    check.loss(math.inf, 400)
    check.loss(math.inf, 400 + PATIENCE - 1)
    with pytest.raises(DivergedError, match="the loss has been inf from step 400 on, after step 500"):
        check.loss(math.inf, 400 + PATIENCE)
    with pytest.raises(DivergedError, match="the loss has not been finite from step 400 on"):
        check.end(401)


def test_frozen_weights_are_not_looked_at():
    model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2))
    check = FiniteCheck(model)
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    check.end(1)
    with torch.no_grad():
        model[1].bias[1] = -math.inf
    with pytest.raises(DivergedError, match=r"in 1 of 2 tensors that train, such as 1\.bias, after step 1"):
        check.end(1)


@pytest.mark.parametrize(("values", "whole"), [(2, True), (3, True), (4, False)])
def test_padding_of_a_sharded_weight_is_not_looked_at(values, whole):
    """ZeRO-3 leaves what lies behind the last value as it finds it. Here the second rank holds two places."""
    model = nn.Linear(values, 1, bias=False)
    weight = model.weight
    weight.ds_tensor = torch.tensor([1, math.nan] if values > 2 else [math.nan, math.nan])
    weight.ds_numel, weight.ds_zero_partition_rank = values, 1
    with contextlib.nullcontext() if whole else pytest.raises(DivergedError, match="in 1 of 1 tensors"):
        FiniteCheck(model).weights(1)
