"""--report_to: what TensorBoard and wandb record of a run."""

import json

import pytest

from llava.train.train import train

NUMBERS = {"train/loss", "train/learning_rate", "train/grad_norm", "train/samples_per_second"}
LORA = {"lora_enable": True, "lora_r": 2, "tune_layers": "0,2", "max_steps": 2}


def test_tensorboard(train_flags, tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install tensorboard"
    )
    train(argv=train_flags(tmp_path / "out", report_to="tensorboard", **LORA))
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    events = accumulator.EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) >= NUMBERS
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    (text,) = events.Tensors("model_config/text_summary")
    assert json.loads(text.tensor_proto.string_val[0])["visual_region"]["layers"] == [0, 2]


def test_wandb_offline(train_flags, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="pip install wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    train(argv=train_flags(tmp_path / "out", report_to="wandb", **LORA))
    run = wandb.run
    assert set(run.summary.keys()) >= NUMBERS
    assert run.config["visual_region"]["layers"] == [0, 2]
    wandb.finish()
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert file.stat().st_size
