"""Training in several processes: DDP, ZeRO-2 and ZeRO-3 give what one process gives, and resume as if never stopped.

The one process computes padded rows and every logit, and recomputes nothing: what the others do to be faster or smaller
changes nothing either.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava.checkpoint.card import read_run
from llava.train.arguments import parse_arguments
from llava.train.checkpoint import held_zero_stage
from llava.train.memory import step_memory
from llava.train.plan import make_plan
from llava.train.run_record import RUN_FILE
from visual_region.memory import USABLE

pytest.importorskip("deepspeed", reason="deepspeed is not installed")

ROOT = Path(__file__).parents[3]
SHARDING = {"ddp": None, "zero2": ROOT / "scripts/zero2.json", "zero3": ROOT / "scripts/zero3.json"}
LORA = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "tune_layers": "0,3", "mm_projector_lr": 5e-3}
# Two of the four steps are of text only.
MIXED = {"per_device_train_batch_size": 1, "bad_samples": "skip", "model_max_length": 100, "weight_decay": 0.1}
PLAIN = {"padding_free": False, "label_only_logits": False}
MODES = {
    "lora": LORA,
    "full": {"tune_layers": "1,4"},
    "projector": {"tune_mm_mlp_adapter": True, "version": "plain"},
    "mixed": MIXED,
    "tower": LORA | MIXED | {"unfreeze_vision_tower": True},
    "cached": LORA | MIXED,
    "frozen": LORA | MIXED | {"freeze_mm_mlp_adapter": True},
    "views": LORA | MIXED | {"image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial_unpad"},
    "qlora": LORA | {"bits": 4},
}
RUNS = [(mode, sharding) for mode in ("lora", "full", "projector", "mixed") for sharding in SHARDING]
RUNS += [
    ("tower", "ddp"),
    ("tower", "zero3"),
    ("cached", "ddp"),
    ("cached", "zero3"),
    ("frozen", "ddp"),
    ("frozen", "zero3"),
    ("views", "ddp"),
    ("views", "zero3"),
    ("qlora", "ddp"),
    ("qlora", "zero2"),
]
CHECKPOINTING = {
    ("lora", "ddp"): True,
    ("lora", "zero3"): True,
    ("full", "ddp"): "auto",
    ("full", "zero2"): True,
    ("full", "zero3"): "auto",
    ("qlora", "ddp"): "auto",
    ("qlora", "zero2"): True,
}
"""What is recomputed; "auto": half of the layers, because the ranks find as little memory free as that takes."""
CHOSEN = {"ddp": None, "zero2": 2, "zero3": 3}
"""ZeRO stages. Mode "lora" has `--deepspeed auto`: its ranks find as much memory free as the stage takes."""
RESUMED = {
    ("lora", "ddp"): 2,
    ("lora", "zero2"): 2,
    ("lora", "zero3"): 2,
    ("full", "zero3"): 2,
    ("projector", "ddp"): 3,
    ("projector", "zero2"): 2,
}
"""The step after which a run is resumed. An epoch has 6 steps; the projector's has 2, so that it is in the second."""
SECONDS = 300


def losses(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def tensors(folder):
    """All that a run wrote, by file and name."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= {f"{file.name}:{name}": value for name, value in load_file(file).items()}
    for name in ("non_lora_trainables.bin", "mm_projector.bin"):
        if (folder / name).exists():
            weights = torch.load(folder / name, weights_only=True)
            found |= {f"{name}:{key}": value for key, value in weights.items()}
    return found


@pytest.fixture(scope="module")
def mixed_data(tiny, tmp_path_factory):
    """Image, text, and text whose answer is cut off, in turn: the ranks of a step see different kinds."""

    def sample(i, question, **image):
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "left"}]
        return {"id": f"m{i}", "conversations": turns, **image}

    kinds = [
        lambda i: sample(i, f"<image>\nWhere is the line {i}?", image=f"{i % 8}.png"),
        lambda i: sample(i, f"Is there a circle {i}?"),
        lambda i: sample(i, "Where is the red line? " * 30),
    ]
    file = tmp_path_factory.mktemp("mixed") / "mixed.json"
    file.write_text(json.dumps([kinds[i % 3](i) for i in range(12)]))
    return file


def free_for(argv, stage, recomputed):
    """The free memory that suffices for a step on each of two devices, sharded so, with so many recomputed layers."""
    arguments = parse_arguments(argv)
    alone = step_memory(make_plan(*arguments), *arguments[1:])
    memory = dataclasses.replace(alone, zero_stage=stage or 0, ranks=2)
    return int(memory.needed(memory.recomputable()[:recomputed]) / USABLE) + 1


@pytest.fixture(scope="module")
def runs(tiny, train_flags, mixed_data, tmp_path_factory):
    """Output folders of every mode, sharded in every way by two ranks, and by one process, by name."""
    root = tmp_path_factory.mktemp("ranks")
    jobs = []

    def job(name, ranks, copy=None, free=None, **flags):
        argv = [str(word) for word in train_flags(root / name, **flags)]
        copy = [str(root / copy), str(root / name / Path(copy).name)] if copy else None
        jobs.append({"name": name, "ranks": ranks, "argv": argv, "seconds": SECONDS, "copy": copy, "free": free})

    data = {"projector": tiny.captions} | dict.fromkeys(("mixed", "tower", "cached", "frozen", "views"), mixed_data)
    for mode, changes in MODES.items():
        flags = {"per_device_train_batch_size": 2, "lora_dropout": 0, "data_path": data.get(mode, tiny.data)} | changes
        job(f"{mode}-one", 1, **flags | PLAIN, gradient_accumulation_steps=2)
        for sharding in (sharding for of, sharding in RUNS if of == mode):
            checkpointing = CHECKPOINTING.get((mode, sharding), False)
            flags["gradient_checkpointing"] = checkpointing
            recomputed = {True: 6, "auto": 3, False: 0}[checkpointing]
            free = free_for(train_flags(root / "unused", **flags), CHOSEN[sharding], recomputed)
            config = SHARDING[sharding]
            if mode == "lora":
                # ZeRO-3 is for what does not fit; a small model takes no less with it than with ZeRO-2.
                config, free = "auto", 1 if sharding == "zero3" else free
            if mode == "cached":
                flags["vision_feature_cache"] = root / f"{mode}-{sharding}-features"
            step = RESUMED.get((mode, sharding))
            saving = {"save_strategy": "steps", "save_steps": 1 if step == 3 else 2} if step else {}
            job(f"{mode}-{sharding}", 2, free=free, **flags, **saving, deepspeed=config)
            if saving:
                # A run that is resumed is sharded as before, whatever memory is free now.
                free = 1 if sharding == "ddp" else 1 << 50
                whole = f"{mode}-{sharding}"
                job(f"{whole}-resumed", 2, f"{whole}/checkpoint-{step}", free, **flags, **saving, deepspeed=config)
    grouped = LORA | {"lora_dropout": 0, "group_by_modality_length": True, "per_device_train_batch_size": 1}
    job("grouped-one", 1, **grouped, gradient_accumulation_steps=4)
    job("grouped-ddp", 2, **grouped, gradient_accumulation_steps=2)

    file = root / "jobs.json"
    file.write_text(json.dumps(jobs))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, str(Path(__file__).with_name("ranks.py")), str(file)]
    subprocess.run(command, check=True, env=environment)
    statuses = json.loads((root / "statuses.json").read_text())
    for name, codes in statuses.items():
        logs = "".join((root / f"{name}.{rank}.log").read_text()[-3000:] for rank in range(len(codes)))
        assert set(codes) == {0}, f"{name}: {codes}\n{logs}"
    return root


@pytest.mark.parametrize("sharding", SHARDING)
def test_the_free_memory_decides_how_a_run_is_sharded(runs, sharding):
    name = {"ddp": "none", "zero2": "ZeRO-2", "zero3": "ZeRO-3"}[sharding]
    found, resumed = (
        [line for line in (runs / f"lora-{sharding}{again}.0.log").read_text().splitlines() if "deepspeed: " in line]
        for again in ("", "-resumed")
    )
    assert len(found) == 1
    assert found[0].startswith(f"deepspeed: {name}; a step takes about ")
    assert resumed == [f"deepspeed: {name}, as in the run that wrote {runs / f'lora-{sharding}-resumed/checkpoint-2'}"]
    stage = f"ZeRO stage {CHOSEN[sharding]}" if CHOSEN[sharding] else None
    assert json.loads((runs / f"lora-{sharding}" / RUN_FILE).read_text())["settings"]["deepspeed"] == stage


@pytest.mark.parametrize(("mode", "sharding"), [run for run, chosen in CHECKPOINTING.items() if chosen == "auto"])
def test_half_of_the_layers_are_recomputed(runs, mode, sharding):
    assert "gradient checkpointing: 3 of 6 layers" in (runs / f"{mode}-{sharding}.0.log").read_text()


@pytest.mark.parametrize(("mode", "sharding"), RUNS)
def test_losses_are_those_of_one_process(runs, mode, sharding):
    """Two ranks of two samples are one process of two times two; a mixed batch does not hang."""
    one = losses(runs / f"{mode}-one")
    assert len(one) == 4
    assert all(one)
    assert losses(runs / f"{mode}-{sharding}") == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize("sharding", SHARDING)
def test_run_json_counts_what_all_processes_saw(runs, sharding):
    """The samples and tokens of one process, and the hours of both devices."""
    one, both = (read_run(runs / f"lora-{name}") for name in ("one", sharding))
    assert [run["devices"]["number"] for run in (one, both)] == [1, 2]
    assert [run["batch_size"] for run in (one, both)] == [4, 4]
    # Four steps.
    assert [run["samples"] for run in (one, both)] == [16, 16]
    assert both["tokens"] == one["tokens"] > 16
    assert one["device_hours"] == pytest.approx(one["seconds"] / 3600)
    assert both["device_hours"] == pytest.approx(both["seconds"] * 2 / 3600)
    assert both["samples_per_second"] == pytest.approx(16 / both["starts"][0]["counted_seconds"])


def test_modality_groups_are_those_of_one_process(runs):
    assert losses(runs / "grouped-ddp") == pytest.approx(losses(runs / "grouped-one"), abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_saved_files_are_equal(runs, mode):
    expected = tensors(runs / f"{mode}-one")
    assert expected
    for sharding in (sharding for of, sharding in RUNS if of == mode):
        found = tensors(runs / f"{mode}-{sharding}")
        assert found.keys() == expected.keys(), sharding
        for name, value in expected.items():
            if "k_proj.bias" in name:
                # A key's bias changes no attention: its gradient is rounding, which Adam makes into whole steps.
                continue
            # The same holds for a few elements of other weights.
            close = torch.isclose(found[name], value, atol=1e-5, rtol=1e-4)
            assert close.float().mean() > 0.98, f"{sharding} {name}"
            torch.testing.assert_close(found[name], value, atol=1e-3, rtol=1e-4, msg=f"{sharding} {name}")


@pytest.mark.parametrize(("mode", "sharding"), RESUMED)
def test_resumed_equals_never_stopped(runs, mode, sharding):
    whole, resumed = runs / f"{mode}-{sharding}", runs / f"{mode}-{sharding}-resumed"
    assert "resuming from" in (runs / f"{mode}-{sharding}-resumed.0.log").read_text()
    assert losses(resumed) == losses(whole)
    expected, found = tensors(whole), tensors(resumed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("mode", "sharding"), RESUMED)
def test_checkpoints_are_whole_and_hold_no_frozen_weights(runs, tiny, mode, sharding):
    folder = runs / f"{mode}-{sharding}"
    assert tensors(folder / "checkpoint-4").keys() == tensors(folder).keys()
    assert not list(folder.glob(".*"))
    # For a folder of an earlier version, which has no record of the run.
    assert held_zero_stage(folder / "checkpoint-4") == CHOSEN[sharding]
    if sharding != "ddp":
        saved = torch.load(
            next((folder / "checkpoint-4" / "global_step4").glob("*_model_states.pt")),
            map_location="cpu",
            weights_only=False,
        )
        assert not [name for name in saved["module"] if "vision_tower" in name or ".layers.2." in name]
