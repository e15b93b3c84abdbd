"""Whole training runs on tiny parts: what trains, what is written, resuming, and bad input."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from llava.model.builder import load_pretrained_model
from llava.train.train import train

MODES = {
    "projector": {"tune_mm_mlp_adapter": True, "version": "plain"},
    "lora": {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "tune_layers": "0,3", "group_by_modality_length": True},
    "lora-all": {"lora_enable": True, "lora_r": 4, "lora_alpha": 8},
    "full": {"tune_layers": "1,4"},
    "full-all": {},
}
COMMON = ("trainer_state.json", "run.json", "tokenizer.json", "tokenizer_config.json")
FILES = {
    "projector": {
        "config.json",
        "mm_projector.bin",
        *COMMON,
    },
    "lora": {
        "config.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "non_lora_trainables.bin",
        *COMMON,
    },
    "full": {
        "config.json",
        "model.safetensors",
        *COMMON,
    },
}


def flags_of(mode, tiny):
    flags = dict(MODES[mode])
    if mode == "projector":
        flags["data_path"] = tiny.captions
    return flags


def read(file):
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)


def losses(output):
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.parametrize("mode", MODES)
def test_trains_exactly_what_was_asked(tiny, train_flags, tmp_path, mode, capsys):
    output = tmp_path / "out"
    train(argv=train_flags(output, **flags_of(mode, tiny)))
    kind = mode.split("-")[0]
    assert FILES[kind] <= {file.name for file in output.iterdir()}
    printed = capsys.readouterr().out
    assert "projector" in printed
    assert str(output) in printed

    base = load_file(tiny.llm / "model.safetensors")
    model = load_pretrained_model(str(output), str(tiny.llm) if kind != "full" else None, device="cpu")[1]
    state = model.state_dict()
    changed = {name for name, value in base.items() if not torch.equal(state[name], value)}
    layers = {int(name.split(".")[2]) for name in changed if ".layers." in name}
    expected = {
        "projector": set(),
        "lora": {0, 3},
        "lora-all": set(range(6)),
        "full": {1, 4},
        "full-all": set(range(6)),
    }
    assert layers == expected[mode]
    outside = {name for name in changed if ".layers." not in name}
    assert bool(outside) == (mode == "full-all"), outside
    tower = load_file(tiny.tower / "model.safetensors")
    own = model.get_vision_tower().vision_tower.state_dict()
    for name, value in tower.items():
        assert torch.equal(own[name.removeprefix("vision_model.")], value), name
    record = json.loads((output / "config.json").read_text()).get("visual_region")
    if mode == "lora":
        assert record == {"tune_layers": "0,3", "layers": [0, 3], "num_layers": 6}
        assert "■□□■□□" in printed


def test_gradient_accumulation_is_the_mean_of_the_means(tiny, train_flags, tmp_path):
    """Two micro-batches give the mean of their losses, as transformers 4.37 did, not one mean over all tokens."""
    runs = {}
    for name, changes in {
        "accumulated": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "max_steps": 1},
        "single": {"per_device_train_batch_size": 1, "max_steps": 2, "learning_rate": 0},
    }.items():
        train(argv=train_flags(tmp_path / name, lora_enable=True, lora_dropout=0, tune_layers="0", **changes))
        runs[name] = losses(tmp_path / name)
    assert runs["accumulated"][0] == pytest.approx(sum(runs["single"]) / 2, abs=2e-4)


def test_a_share_of_the_data(tiny, train_flags, tmp_path, capsys):
    """The trainer sees the drawn samples only; another seed draws others; a resumed run keeps its share."""
    seen = {}
    for name, changes in {
        "whole": {},
        "half": {"data_share": "50%", "data_seed": 1},
        "again": {"data_share": "50%", "data_seed": 1, "seed": 7},
        "other": {"data_share": "50%", "seed": 2},
    }.items():
        train(argv=train_flags(tmp_path / name, tune_mm_mlp_adapter=True, max_steps=1, **changes))
        seen[name] = json.loads((tmp_path / name / "run_settings.json").read_text())["settings"]["samples used"]
    assert 2 * int(seen["half"]["name"]) == int(seen["whole"]["name"])
    assert seen["half"] == seen["again"] != seen["other"]
    assert "training on 50% of" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="samples used"):
        train(argv=train_flags(tmp_path / "half", tune_mm_mlp_adapter=True, max_steps=1, data_seed=1))
    with pytest.raises(SystemExit, match="did you mean '50%'"):
        train(argv=train_flags(tmp_path / "wrong", tune_mm_mlp_adapter=True, max_steps=1, data_share="0.5"))


def test_speed_options_leave_the_loss_alone(tiny, train_flags, tmp_path):
    common = {"lora_enable": True, "lora_dropout": 0, "tune_layers": "0,3"}
    variants = {
        "plain": {"label_only_logits": False, "padding_free": False, "attn_implementation": "eager"},
        "padded": {"padding_free": False},
        "padding_free": {"padding_free": True},
        "nothing_shared": {"share_prefix": False},
        "padding_free_whole_logits": {"padding_free": True, "label_only_logits": False},
        "label_only": {"label_only_logits": True},
        "cached": {"vision_feature_cache": tmp_path / "features"},
        "cached_again": {"vision_feature_cache": tmp_path / "features"},
        "checkpointed": {"gradient_checkpointing": True},
    }
    results = {}
    for name, changes in variants.items():
        train(argv=train_flags(tmp_path / name, **common, **changes))
        results[name] = losses(tmp_path / name)
    for name, values in results.items():
        assert values == pytest.approx(results["plain"], abs=2e-4), name


@pytest.mark.parametrize("mode", ["projector", "lora", "full"])
def test_killed_and_resumed_equals_never_stopped(tiny, train_flags, tmp_path, mode, start):
    """SIGKILL in mid-training; started again, the run ends with the same weights, bit for bit."""
    changes = flags_of(mode, tiny) | {"max_steps": 12, "save_strategy": "steps", "save_steps": 2}
    if mode == "lora":
        changes["lora_dropout"] = 0.1
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(argv=train_flags(whole, **changes))

    code = "import sys; from llava.train.train import train; train(argv=sys.argv[1:])"
    flags = ["-c", code, *train_flags(stopped, **changes)]
    # One mode is started by the interpreter itself.
    process = subprocess.Popen([sys.executable, *flags]) if mode == "full" else start(*flags)
    deadline = time.monotonic() + 120
    while not list(stopped.glob("checkpoint-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(stopped.glob("checkpoint-*")), "the run wrote no checkpoint before it was killed"
    assert not (stopped / "config.json").exists(), "the run was over before it was killed"
    train(argv=train_flags(stopped, **changes))

    for name in ("adapter_model.safetensors", "model.safetensors"):
        if (whole / name).exists():
            first, second = load_file(whole / name), load_file(stopped / name)
            assert first.keys() == second.keys()
            assert all(torch.equal(first[key], second[key]) for key in first)
    for name in ("non_lora_trainables.bin", "mm_projector.bin"):
        if (whole / name).exists():
            first, second = (torch.load(folder / name, weights_only=True) for folder in (whole, stopped))
            assert first.keys() == second.keys()
            assert all(torch.equal(first[key], second[key]) for key in first)
    assert losses(whole) == losses(stopped)


@pytest.mark.parametrize("mode", ["projector", "lora", "full"])
def test_a_finished_run_started_again_trains_no_further(tiny, train_flags, tmp_path, mode):
    """In the middle of an epoch, where transformers looks whether it is done only after one more step."""
    output = tmp_path / "out"
    flags = train_flags(output, **flags_of(mode, tiny), max_steps=1, save_strategy="steps", save_steps=1)
    names = {"projector": "mm_projector.bin", "lora": "adapter_model.safetensors", "full": "model.safetensors"}
    train(argv=flags)
    before, losses_before = read(output / names[mode]), losses(output)
    train(argv=flags)
    after = read(output / names[mode])
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert losses(output) == losses_before
    assert json.loads((output / "trainer_state.json").read_text())["global_step"] == 1
    assert [folder.name for folder in output.glob("checkpoint-*")] == ["checkpoint-1"]


def test_a_card_of_the_user_in_the_output_folder_stays(train_flags, tmp_path):
    card = tmp_path / "out/README.md"
    card.parent.mkdir()
    card.write_text("# My own words\n")
    train(argv=train_flags(tmp_path / "out", **MODES["lora"], max_steps=1))
    assert card.read_text() == "# My own words\n"


def test_killed_between_the_last_checkpoint_and_the_removal_of_the_one_before(train_flags, tmp_path):
    output = tmp_path / "out"
    flags = train_flags(output, **MODES["lora"], max_steps=2, save_strategy="steps", save_steps=1, save_total_limit=1)
    train(argv=flags)
    shutil.copytree(output / "checkpoint-2", output / "checkpoint-1")
    (output / "config.json").unlink()
    train(argv=flags)
    assert [folder.name for folder in output.glob("checkpoint-*")] == ["checkpoint-2"]


def test_checkpoint_of_a_lora_run_loads_like_the_final_folder(tiny, train_flags, tmp_path):
    output = tmp_path / "out"
    train(argv=train_flags(output, **MODES["lora"], save_strategy="steps", save_steps=4))
    ids = torch.tensor([[1, 5, 6, 7]])
    logits = [
        load_pretrained_model(str(folder), str(tiny.llm), device="cpu")[1](input_ids=ids).logits
        for folder in (output, output / "checkpoint-4")
    ]
    torch.testing.assert_close(*logits)


def test_projector_of_stage_1_is_used(tiny, train_flags, tmp_path):
    train(argv=train_flags(tmp_path / "one", **flags_of("projector", tiny)))
    file = tmp_path / "one" / "mm_projector.bin"
    weights = torch.load(file, weights_only=True)
    assert set(weights) == {f"model.mm_projector.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}
    train(argv=train_flags(tmp_path / "two", pretrain_mm_mlp_adapter=file, freeze_mm_mlp_adapter=True, tune_layers="0"))
    model = load_pretrained_model(str(tmp_path / "two"), device="cpu")[1]
    assert torch.equal(model.model.mm_projector[0].weight, weights["model.mm_projector.0.weight"])


def test_frozen_projector_is_kept_beside_a_lora(tiny, train_flags, tmp_path):
    train(argv=train_flags(tmp_path / "one", **flags_of("projector", tiny)))
    file = tmp_path / "one" / "mm_projector.bin"
    flags = {"lora_enable": True, "tune_layers": "0", "freeze_mm_mlp_adapter": True, "pretrain_mm_mlp_adapter": file}
    train(argv=train_flags(tmp_path / "two", **flags))
    model = load_pretrained_model(str(tmp_path / "two"), device="cpu")[1]
    expected = torch.load(file, weights_only=True)["model.mm_projector.0.weight"]
    assert torch.equal(model.model.mm_projector[0].weight, expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tune_layers": "0,6"}, "there is no layer 6"),
        ({"tune_layers": " "}, "empty"),
        ({"tune_layers": "sparse:2"}, "sparse-uniform"),
        ({"tune_layers": "top:1%"}, "selects no layer"),
        ({"image_folder": "/nowhere"}, "--image_folder /nowhere does not exist"),
        ({"data_path": "/nowhere.json"}, "data file /nowhere.json does not exist"),
        ({"data_path": None}, "--data_path is missing"),
        ({"version": "chatml"}, "does not fit the tokenizer"),
        ({"version": "v7"}, "unknown conversation template 'v7'"),
        ({"model_name_or_path": "/no/model"}, "checkpoint /no/model does not exist: there is no such folder"),
        ({"vision_tower": "/no/tower"}, "vision tower '/no/tower'"),
        ({"mm_projector_type": "mlp"}, "unknown --mm_projector_type 'mlp'"),
        ({"mm_projector_type": "identity"}, "as wide as the language model"),
        ({"image_aspect_ratio": "anyres_max_9"}, "allowed: square, pad, anyres"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "it needs --image_aspect_ratio anyres"),
        ({"tune_mm_mlp_adapter": True, "tune_layers": "0"}, "stage 1 trains the projector only"),
    ],
)
def test_bad_input_is_told_before_weights_are_loaded(train_flags, tmp_path, monkeypatch, changes, words):
    from llava.families import ModelFamily

    monkeypatch.setattr(ModelFamily, "load_model_class", lambda self: pytest.fail("weights were about to be loaded"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit) as stop:
        train(argv=train_flags(tmp_path / "out", **changes))
    assert words in str(stop.value)


def test_all_errors_at_once(train_flags, tmp_path):
    with pytest.raises(SystemExit) as stop:
        train(argv=train_flags(tmp_path / "out", tune_layers="99", data_path="/nowhere.json", version="v7"))
    assert str(stop.value).count("\n- ") == 3


def test_projector_file_of_another_type_or_shape(tiny, train_flags, tmp_path):
    linear = tmp_path / "linear.bin"
    torch.save({"model.mm_projector.weight": torch.zeros(32, 24), "model.mm_projector.bias": torch.zeros(32)}, linear)
    with pytest.raises(SystemExit, match="looks like --mm_projector_type linear"):
        train(argv=train_flags(tmp_path / "out", pretrain_mm_mlp_adapter=linear))
    torch.save({"mm_projector.weight": torch.zeros(64, 24), "mm_projector.bias": torch.zeros(64)}, linear)
    with pytest.raises(SystemExit, match="has weight 64x24"):
        train(argv=train_flags(tmp_path / "out", pretrain_mm_mlp_adapter=linear, mm_projector_type="linear"))


def test_bad_samples_fail_or_are_left_out(tiny, train_flags, tmp_path, capsys):
    items = json.loads(tiny.data.read_text())
    items[1]["image"] = "gone.png"
    data = tmp_path / "data.json"
    data.write_text(json.dumps(items))
    with pytest.raises(SystemExit, match=r"1 sample: image files are missing.*ids s1"):
        train(argv=train_flags(tmp_path / "out", data_path=data, tune_layers="0"))
    train(argv=train_flags(tmp_path / "out", data_path=data, tune_layers="0", bad_samples="skip", max_steps=1))
    assert "leaving out 1 of 24 samples" in capsys.readouterr().out
    # A feature cache is made of the images that are used, and of no others.
    cached = {"vision_feature_cache": tmp_path / "cache", "data_share": "10%"}
    train(argv=train_flags(tmp_path / "2", data_path=data, tune_layers="0", bad_samples="skip", max_steps=1, **cached))
    (index,) = (tmp_path / "cache").glob("*/index.jsonl")
    assert len(index.read_text().splitlines()) == 1


def test_old_spellings():
    from llava.train.flag_names import modern_argv

    argv = ["--evaluation_strategy", "no", "--warmup_ratio=0.03", "--overwrite_output_dir", "True", "--bf16", "True"]
    assert modern_argv(argv) == ["--eval_strategy", "no", "--warmup_steps=0.03", "--bf16", "True"]


@pytest.mark.parametrize("mode", ["projector", "lora", "full"])
def test_best_checkpoint_is_kept_and_taken(tiny, train_flags, tmp_path, mode):
    """Measured on --eval_data_path; rotation keeps the best and the newest, and the result is the best."""
    changes = flags_of(mode, tiny) | {
        "eval_data_path": tiny.captions,
        "evaluation_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        # The last step of LoRA and full tuning is not the best. At 30 their gradients become NaN.
        "learning_rate": 3,
        "lr_scheduler_type": "linear",
        "warmup_ratio": None,
        "max_grad_norm": 0,
        "max_steps": 3,
    }
    output = tmp_path / "out"
    train(argv=train_flags(output, **changes))
    state = json.loads((output / "trainer_state.json").read_text())
    measured = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    best = min(measured, key=measured.get)
    assert state["best_model_checkpoint"] == str(output / f"checkpoint-{best}")
    assert (output / f"checkpoint-{best}").is_dir()
    names = {"projector": "mm_projector.bin", "lora": "adapter_model.safetensors", "full": "model.safetensors"}
    result, expected = (read(folder / names[mode]) for folder in (output, output / f"checkpoint-{best}"))
    assert result.keys() == expected.keys()
    assert all(torch.equal(result[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluation_strategy": "steps"}, "needs --eval_data_path"),
        ({"eval_data_path": "/nowhere.json"}, "data file /nowhere.json does not exist"),
        ({"attn_implementation": "flash_attention_2"}, "cannot run: there is no GPU"),
    ],
)
def test_bad_settings_of_measuring_and_attention(train_flags, tmp_path, changes, words):
    with pytest.raises(SystemExit) as stop:
        train(argv=train_flags(tmp_path / "out", tune_layers="0", **changes))
    assert words in str(stop.value)
