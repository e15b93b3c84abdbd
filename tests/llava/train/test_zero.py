"""DeepSpeed configs: upstream's facts in ours, its mistakes set right in anybody's, and errors told early."""

import importlib.util
import json
from pathlib import Path

import pytest

from llava.train.checkpoint import sharding_problem
from llava.train.train import train
from llava.train.zero import ZeroConfigError, read_zero_config

ROOT = Path(__file__).parents[3]
FILES = ("zero2", "zero3", "zero3_offload")


@pytest.mark.parametrize("name", FILES)
def test_our_files_need_no_correction(name, capsys):
    file = ROOT / f"scripts/{name}.json"
    assert read_zero_config(str(file)) == json.loads(file.read_text())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", FILES)
def test_upstreams_values(name):
    """The values of upstream's scripts/*.json."""
    config = read_zero_config(str(ROOT / f"scripts/{name}.json"))
    assert config["fp16"] == {
        "enabled": "auto",
        "loss_scale": 0,
        "loss_scale_window": 1000,
        "initial_scale_power": 16,
        "hysteresis": 2,
        "min_loss_scale": 1,
    }
    assert config["bf16"] == {"enabled": "auto"}
    for key in ("train_micro_batch_size_per_gpu", "train_batch_size", "gradient_accumulation_steps"):
        assert config[key] == "auto"
    zero = config["zero_optimization"]
    assert zero["stage"] == int(name[4])
    assert zero["overlap_comm"] is True
    assert zero["contiguous_gradients"] is True
    assert zero["sub_group_size"] == 1e9
    assert zero["reduce_bucket_size"] == "auto"
    if zero["stage"] == 3:
        assert zero["stage3_prefetch_bucket_size"] == zero["stage3_param_persistence_threshold"] == "auto"
        assert zero["stage3_max_live_parameters"] == zero["stage3_max_reuse_distance"] == 1e9
    assert ("offload_param" in zero) == (name == "zero3_offload")


def test_what_works_against_the_flags_is_left_out(capsys):
    """Upstream's zero3_offload.json: a scheduler in place of the cosine, an optimizer without projector rate."""
    config = read_zero_config(
        {
            "optimizer": {"type": "AdamW", "params": {"lr": "auto"}},
            "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": "auto"}},
            "zero_optimization": {"stage": 3, "gather_16bit_weights_on_model_save": True},
        }
    )
    assert config == {
        "gradient_clipping": "auto",
        "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    }
    said = capsys.readouterr().err
    assert "--lr_scheduler_type" in said
    assert "--mm_projector_lr" in said
    assert "--max_grad_norm" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "not valid JSON"),
        ("[]", "no JSON object"),
        ('{"zero_optimization": {"stage": 4}}', "allowed: 0, 1, 2, 3"),
    ],
)
def test_bad_files(tmp_path, content, words):
    file = tmp_path / "zero.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ZeroConfigError, match=words):
        read_zero_config(str(file))


def test_missing_package(train_flags, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "deepspeed" else found(name))
    with pytest.raises(SystemExit) as stop:
        train(argv=train_flags(tmp_path / "out", deepspeed=ROOT / "scripts/zero2.json"))
    assert "pip install" in str(stop.value)
    assert "DEEPSPEED=" in str(stop.value)


def test_checkpoints_of_other_runs_are_refused(tmp_path):
    """DeepSpeed and the trainer would both go on without a word, with a new optimizer."""
    folder = tmp_path / "checkpoint-2"
    (folder / "global_step2").mkdir(parents=True)
    for rank in range(2):
        (folder / f"global_step2/bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
    assert sharding_problem(folder, 2) is None
    for ranks, words in ((None, "with --deepspeed"), (4, "written by 2 processes"), (1, "written by 2 processes")):
        assert words in sharding_problem(folder, ranks)
