"""--push_to_hub: which files go to the Hub, when, and what a failure does. Calls that need a network are recorded."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import filter_repo_objects
from transformers.trainer_utils import HubStrategy

from llava.train.llava_trainer import LLaVATrainer
from llava.train.train import train


@pytest.fixture
def hub(monkeypatch):
    """(message, path in the repository, names of the files) of each upload."""
    uploads = []

    def upload_folder(self, *, folder_path, commit_message, path_in_repo="", ignore_patterns=None, **where):
        assert where["repo_id"] == "me/tiny"
        # What was in an earlier last-checkpoint and is not in this one, such as a folder of DeepSpeed, has to go.
        assert where.get("delete_patterns") == ("*" if path_in_repo == "last-checkpoint" else None)
        names = [str(file.relative_to(folder_path)) for file in sorted(Path(folder_path).rglob("*")) if file.is_file()]
        uploads.append(
            (commit_message, path_in_repo, list(filter_repo_objects(names, ignore_patterns=ignore_patterns)))
        )
        return "https://hub/me/tiny"

    def create_repo(self, name, **options):
        return type("Url", (), {"repo_id": f"me/{name}"})()

    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    return uploads


PUSH = {"push_to_hub": True, "hub_model_id": "tiny", "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
LORA = {"lora_enable": True, "lora_r": 2, "tune_layers": "0,2"}


def test_lora_at_every_save_and_at_the_end(train_flags, tmp_path, hub, capsys):
    train(argv=train_flags(tmp_path / "out", **PUSH, **LORA))
    messages = [message for message, _, _ in hub]
    assert messages == ["checkpoint-2: model", "checkpoint-4: model", "End of training"]
    for _, _, names in hub:
        assert {"adapter_model.safetensors", "non_lora_trainables.bin", "config.json", "README.md"} <= set(names)
        assert not any(name.startswith(("optimizer", "scheduler", "rng_state", ".", "checkpoint-")) for name in names)
    assert "run.json" in hub[-1][2]
    assert (tmp_path / "out" / "README.md").read_text().count("llava-visual-region")
    assert "pushed to https://hub/me/tiny" in capsys.readouterr().out


@pytest.mark.parametrize("strategy", [HubStrategy.END, HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS])
def test_strategies(train_flags, tmp_path, hub, strategy):
    train(argv=train_flags(tmp_path / "out", **PUSH, hub_strategy=strategy.value, tune_mm_mlp_adapter=True))
    places = [place for _, place, _ in hub]
    if strategy is HubStrategy.END:
        assert places == [""]
        return
    whole = ["last-checkpoint"] * 2 if strategy is HubStrategy.CHECKPOINT else ["checkpoint-2", "checkpoint-4"]
    assert places == ["", whole[0], "", whole[1], ""]
    assert any(name.startswith("optimizer") for name in hub[1][2])


def test_full_is_pushed_when_it_is_complete(train_flags, tmp_path, hub):
    train(argv=train_flags(tmp_path / "out", **PUSH | {"hub_strategy": "end"}, tune_layers="1", max_steps=2))
    ((_, _, names),) = hub
    assert {"config.json", "model.safetensors", "README.md", "run.json"} <= set(names)


def test_the_token_is_not_pushed(train_flags, tmp_path, hub):
    """transformers writes it to training_args.bin, next to the weights of a whole model."""
    settings = PUSH | {"hub_strategy": "all_checkpoints", "hub_token": "hf_secret", "max_steps": 2}
    train(argv=train_flags(tmp_path / "out", **settings, tune_layers="1"))
    assert b"hf_secret" in (tmp_path / "out/training_args.bin").read_bytes()
    assert len(hub) == 3
    assert not any("training_args.bin" in name for _, _, names in hub for name in names)


def test_a_failure_costs_no_result(train_flags, tmp_path, hub, monkeypatch, capsys):
    def fail(self, **where):
        raise ConnectionError("no route to the Hub")

    monkeypatch.setattr(HfApi, "upload_folder", fail)
    why = r"its result is in .*out, but it was not pushed to me/tiny.*hf upload"
    with pytest.raises(SystemExit, match=rf"{why}.* --exclude 'checkpoint-\*' '\.\*' training_args\.bin$"):
        train(argv=train_flags(tmp_path / "out", **PUSH, **LORA))
    assert "checkpoint-2 was not pushed to me/tiny, training goes on: no route" in capsys.readouterr().out
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_a_result_that_was_not_pushed_is_finished(train_flags, tmp_path, hub, monkeypatch, capsys):
    """The same command pushes it without training again, also without a checkpoint to go on from."""

    def fail(self, **where):
        raise ConnectionError("no route to the Hub")

    argv = train_flags(tmp_path / "out", **PUSH | {"save_strategy": "no"}, **LORA)
    with monkeypatch.context() as patch:
        patch.setattr(HfApi, "upload_folder", fail)
        with pytest.raises(SystemExit, match=r"it was not pushed to me/tiny"):
            train(argv=argv)
    monkeypatch.setattr(LLaVATrainer, "train", None)
    train(argv=argv)
    said = capsys.readouterr().out
    assert "done before, with the same settings" in said
    assert "pushed to https://hub/me/tiny" in said
    ((_, _, names),) = hub
    assert {"adapter_model.safetensors", "README.md", "run.json"} <= set(names)


def test_a_repository_that_cannot_be_created(train_flags, tmp_path, hub, monkeypatch):
    """One line before weights are loaded; an error of the network is no `OSError` in every library."""

    def fail(self, name, **options):
        raise RuntimeError("no route to the Hub")

    monkeypatch.setattr(HfApi, "create_repo", fail)
    monkeypatch.setattr("llava.train.run.load_model", None)
    with pytest.raises(SystemExit, match="the repository tiny cannot be reached or created: no route to the Hub"):
        train(argv=train_flags(tmp_path / "out", **PUSH, **LORA))
    assert not (tmp_path / "out").exists()


def test_wrong_reports_are_named_before_anything_is_read(train_flags, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("llava.train.hub.get_token", lambda: None)
    monkeypatch.setattr("llava.train.flag_checks.get_available_reporting_integrations", list)
    with pytest.raises(SystemExit) as error:
        train(argv=train_flags(tmp_path / "out", push_to_hub=True, report_to="wandb"))
    assert "--push_to_hub needs a token: run `hf auth login`" in str(error.value)
    assert "--report_to wandb: its package is not installed" in str(error.value)
    assert not (tmp_path / "out").exists()
