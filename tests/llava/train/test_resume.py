"""A run is resumed with the settings that it was started with, or the program says what differs."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.data.dataset import LazySupervisedDataset
from llava.train.arguments import ARGUMENTS
from llava.train.run_record import MAY_CHANGE, RUN_FILE, may_change
from llava.train.train import train
from tests.conftest import REPOSITORY

LORA = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "tune_layers": "0,3"}
SAVED = LORA | {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}


@pytest.fixture(scope="module")
def begun(train_flags, tmp_path_factory):
    """A finished run of two steps, with checkpoint-2."""
    folder = tmp_path_factory.mktemp("begun") / "out"
    train(argv=train_flags(folder, **SAVED))
    return folder


@pytest.fixture
def output(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "moved")


@pytest.fixture
def refused(train_flags, monkeypatch):
    """The message of a training that is refused before weights are loaded; nothing in its folder changes."""
    from llava.families import ModelFamily

    def message(output: Path, **changes: object) -> str:
        before = {file: file.stat().st_mtime_ns for file in output.rglob("*")}
        with monkeypatch.context() as patch:
            patch.setattr(ModelFamily, "load_model_class", lambda self: pytest.fail("weights were about to be loaded"))
            with pytest.raises(SystemExit) as stop:
                train(argv=train_flags(output, **SAVED | changes))
        assert {file: file.stat().st_mtime_ns for file in output.rglob("*")} == before
        return str(stop.value)

    return message


def test_skipped_batches_are_not_made(train_flags, output, monkeypatch):
    """After many steps a resumed run would otherwise open thousands of images first."""
    made, indices = LazySupervisedDataset.__getitem__, []

    def counted(dataset, i):
        indices.append(i)
        return made(dataset, i)

    monkeypatch.setattr(LazySupervisedDataset, "__getitem__", counted)
    train(argv=train_flags(output, **SAVED | {"max_steps": 4}))
    # Two steps of three samples; the loader is one batch ahead.
    assert len(indices) == 3 * 3


def other_model(tiny, folder: Path) -> Path:
    shutil.copytree(tiny.llm, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: value * 1.5 for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_every_difference_is_told_at_once(tiny, output, refused, tmp_path):
    changes = {
        "model_name_or_path": other_model(tiny, tmp_path / "other"),
        "data_path": tiny.captions,
        "learning_rate": 0.5,
        "lora_r": 8,
        "tune_layers": "1,2",
        "seed": 7,
        "model_max_length": 128,
        "per_device_train_batch_size": 2,
        "version": "llava_v1",
        "warmup_ratio": 0.1,
    }
    text = refused(output, **changes, max_steps=4)
    assert f"{output / 'checkpoint-2'} was written by a run with other settings" in text
    lines = set(re.findall(r"^- (?:--)?([\w ]+): before .*, now ", text, re.MULTILINE))
    assert lines == set(changes) - {"warmup_ratio"} | {"warmup_steps", "samples used"}
    assert f"--model_name_or_path: before {tiny.llm}, now {tmp_path / 'other'}" in text
    assert "--learning_rate: before 0.01, now 0.5" in text
    assert "--tune_layers: before 0,3, now 1,2" in text
    assert "another --output_dir" in text


@pytest.mark.parametrize("mode", ["full", "projector"])
def test_another_mode(tiny, output, refused, mode):
    changes = {"full": {"lora_enable": False}, "projector": {"lora_enable": False, "tune_layers": None}}[mode]
    changes |= {"tune_mm_mlp_adapter": True, "version": "plain", "data_path": tiny.captions} if mode != "full" else {}
    assert f"- what trains: before LoRA, now {mode}" in refused(output, **changes)


def test_the_same_path_with_another_content(tiny, train_flags, refused, tmp_path):
    """Towers, data files and images are compared by content."""
    copies = tmp_path / "copies"
    shutil.copytree(tiny.root, copies)
    paths = {"vision_tower": copies / "tower", "data_path": copies / "data.json", "image_folder": copies / "images"}
    out = tmp_path / "out"
    train(argv=train_flags(out, **SAVED, **paths))
    weights = load_file(copies / "tower/model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, copies / "tower/model.safetensors")
    shutil.copyfile(copies / "images/7.png", copies / "images/1.png")
    text = refused(out, **paths)
    for flag in ("vision_tower", "image_folder"):
        assert f"--{flag}: before {paths[flag]} with another content, now {paths[flag]}" in text
    paths["data_path"].write_text(json.dumps(json.loads(paths["data_path"].read_text())[::-1]))
    assert f"--data_path: before {paths['data_path']} with another content" in refused(out, **paths)


def test_moved_and_longer_is_the_same_run(tiny, output, train_flags, tmp_path, capsys):
    """Everything at other paths, other names of template and layers, and all that may change."""
    copies = shutil.copytree(tiny.root, tmp_path / "copies")
    moved = {"model_name_or_path": copies / "llm", "vision_tower": copies / "tower", "data_path": copies / "data.json"}
    moved |= {"image_folder": copies / "images", "version": "vicuna_v1", "tune_layers": "3,0"}
    free = {"max_steps": 3, "save_steps": 1, "save_total_limit": 1, "logging_steps": 2, "gradient_checkpointing": True}
    train(argv=train_flags(output, **SAVED | moved | free))
    assert f"resuming from {output / 'checkpoint-2'}" in capsys.readouterr().out
    assert json.loads((output / "trainer_state.json").read_text())["global_step"] == 3
    record = json.loads((output / RUN_FILE).read_text())
    assert record["finished"]
    assert record["length"]["max_steps"] == 3


def test_other_intervals_of_saving_and_logging(output, train_flags):
    """transformers takes those of the checkpoint."""
    train(argv=train_flags(output, **SAVED | {"max_steps": 5, "save_steps": 1, "logging_steps": 2}))
    assert {folder.name for folder in output.glob("checkpoint-*")} == {f"checkpoint-{step}" for step in (2, 3, 4, 5)}
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "loss" in entry] == [1, 2, 4]


@pytest.mark.parametrize("saved", ["steps", "no"])
def test_a_finished_run_is_done(begun, tiny, train_flags, refused, tmp_path, monkeypatch, capsys, saved):
    output = tmp_path / "out"
    shutil.copytree(begun, output, ignore=shutil.ignore_patterns("checkpoint-*") if saved == "no" else None)
    monkeypatch.setattr("llava.train.run.load_model", None)
    train(argv=train_flags(output, **SAVED | {"save_strategy": saved}))
    assert "done before, with the same settings: the adapter and non_lora_trainables.bin" in capsys.readouterr().out
    assert "--learning_rate: before 0.01, now 0.5" in refused(output, learning_rate=0.5)
    assert "--max_steps 1: it has made 2 steps already" in refused(output, max_steps=1)
    if saved == "no":
        assert "no checkpoint-N to go on from" in refused(output, max_steps=3)
    (output / "adapter_model.safetensors").unlink()
    assert "holds a damaged result" in refused(output)
    record = json.loads((output / RUN_FILE).read_text())
    (output / RUN_FILE).write_text(json.dumps(record)[:-9])
    assert f"{output / RUN_FILE} cannot be read" in refused(output)


def test_a_folder_of_an_earlier_version(tiny, output, train_flags, refused, tmp_path, capsys):
    """It has no record of the run: config.json, the adapter, the base's fingerprint and the scheduler are compared."""
    (output / RUN_FILE).unlink()
    changes = {"learning_rate": 0.5, "lora_r": 8, "lora_dropout": 0.5, "tune_layers": "1,2", "model_max_length": 128}
    changes |= {"version": "llava_v1", "image_aspect_ratio": "square"}
    text = refused(output, model_name_or_path=other_model(tiny, tmp_path / "other"), max_steps=4, **changes)
    for flag in (*changes, "model_name_or_path"):
        assert f"- --{flag}: " in text
    assert text.count("\n- ") == len(changes) + 1
    assert "what trains: before LoRA, now full" in refused(output, lora_enable=False, max_steps=4)
    train(argv=train_flags(output, **SAVED))
    assert "done before" in capsys.readouterr().out
    train(argv=train_flags(output, **SAVED | {"max_steps": 3}))
    assert f"resuming from {output / 'checkpoint-2'}" in capsys.readouterr().out


def test_resume_from_checkpoint(output, refused, train_flags, tmp_path, capsys):
    new = tmp_path / "new"
    new.mkdir()
    assert "holds no complete checkpoint-N" in refused(new, resume_from_checkpoint=True)
    missing = refused(output, resume_from_checkpoint=output / "checkpoint-9")
    assert f"there is no such folder; {output} holds checkpoint-2" in missing
    assert "trainer_state.json, optimizer.pt" in refused(output, resume_from_checkpoint=new)
    assert "starts a new run, but" in refused(output, resume_from_checkpoint=False)
    train(argv=train_flags(output, **SAVED | {"max_steps": 3}, resume_from_checkpoint=True))
    assert "resuming from" in capsys.readouterr().out
    # A checkpoint of another folder, into a new one.
    given = {"resume_from_checkpoint": output / "checkpoint-2"}
    assert "--seed: before 42, now 7" in refused(new, seed=7, **given)
    train(argv=train_flags(new, **SAVED | {"max_steps": 3}, **given))
    assert f"resuming from {output / 'checkpoint-2'}" in capsys.readouterr().out
    states = [torch.load(folder / "non_lora_trainables.bin", weights_only=True) for folder in (output, new)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    train(argv=train_flags(tmp_path / "fresh", **LORA, resume_from_checkpoint=False))
    assert "resuming" not in capsys.readouterr().out


def test_checkpoints_that_the_run_would_delete(output, refused, train_flags, tmp_path, capsys):
    """Those with more steps than the start, and those of another run."""
    newer = shutil.copytree(output / "checkpoint-2", output / "checkpoint-4")
    (newer / "optimizer.pt").unlink()
    text = refused(output, max_steps=6)
    assert f"holds checkpoint-4, but this run starts at {output / 'checkpoint-2'}" in text
    assert "delete checkpoint-4, or give another --output_dir" in text
    assert "leave out --resume_from_checkpoint" in refused(output, max_steps=6, resume_from_checkpoint=True)
    train(argv=train_flags(output, **SAVED))
    assert "done before" in capsys.readouterr().out
    shutil.rmtree(newer)

    other = shutil.copytree(output, tmp_path / "other")
    for name in ("config.json", "trainer_state.json"):
        (other / name).unlink()
    record = json.loads((other / RUN_FILE).read_text())
    record["settings"]["seed"] = 7
    (other / RUN_FILE).write_text(json.dumps(record))
    text = refused(other, max_steps=3, resume_from_checkpoint=output / "checkpoint-2")
    assert f"{other / 'checkpoint-2'} was written by a run with other settings" in text
    assert "- --seed: before 7, now 42" in text


def test_epochs_have_no_effect_with_steps(output, train_flags, capsys):
    shutil.rmtree(output / "checkpoint-2")
    train(argv=train_flags(output, **SAVED, num_train_epochs=5))
    assert "done before" in capsys.readouterr().out


def test_the_table_of_what_may_change():
    """Its names exist, the important flags are not in it, and the page has the same table."""
    names = [part.name for values in ARGUMENTS for part in dataclasses.fields(values)]
    from bunny.train.arguments import ARGUMENTS as BUNNY

    names += [part.name for part in dataclasses.fields(BUNNY[0])]
    for pattern in (pattern for patterns in MAY_CHANGE.values() for pattern in patterns):
        assert any(re.fullmatch(pattern.replace("*", ".*"), name) for name in names), pattern
    kept = ("learning_rate", "seed", "lora_r", "lora_alpha", "lora_dropout", "bits", "model_max_length", "weight_decay")
    kept += ("per_device_train_batch_size", "gradient_accumulation_steps", "lr_scheduler_type", "warmup_steps", "bf16")
    assert not [name for name in kept if may_change(name)]
    page = (REPOSITORY / "docs/training.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([a-z ]+) \| (`.*`) \|", page, re.MULTILINE))
    assert {kind: tuple(re.findall(r"`([\w*]+)`", flags)) for kind, flags in rows.items()} == MAY_CHANGE
