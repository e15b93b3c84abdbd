"""run.json: what a training was and what it cost, also if it was killed and resumed."""

import json
import subprocess
import time

import pytest
import torch

from llava.checkpoint.card import RUN_FILE
from llava.constants import IMAGE_TOKEN_INDEX
from llava.tiling import Tiling
from llava.train.llava_trainer import LLaVATrainer
from llava.train.run_meter import decoder_positions
from llava.train.train import train
from tests.conftest import REPOSITORY


def read(folder):
    return json.loads((folder / RUN_FILE).read_text())


def test_what_a_run_was(tiny, train_flags, tmp_path, monkeypatch):
    """Samples and positions are those that the decoder computed."""
    batches, original = [], LLaVATrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        batches.append({name: inputs[name].clone() for name in ("input_ids", "attention_mask")})
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(LLaVATrainer, "compute_loss", spy)
    output = tmp_path / "out"
    changes = {"lora_enable": True, "lora_r": 4, "tune_layers": "0,3", "seed": 3}
    changes |= {"data_share": "50%", "data_seed": 5}
    train(
        argv=train_flags(output, max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2, **changes)
    )
    run = read(output)
    assert run["selection"]["layers"] == [0, 3]
    settings = {"kind": "lora", "seed": 3, "data_share": "50%", "data_seed": 5, "batch_size": 4, "steps": 3}
    settings |= {"finished": True}
    assert {name: run[name] for name in settings} == settings
    assert run["samples"] == sum(len(batch["input_ids"]) for batch in batches) == 12
    images = sum(int((batch["input_ids"] == IMAGE_TOKEN_INDEX).sum()) for batch in batches)
    texts = sum(int(batch["attention_mask"].sum()) for batch in batches) - images
    config = json.loads((output / "config.json").read_text())
    assert images
    assert run["tokens"] == texts + images * 4
    assert run["devices"] == {"name": run["devices"]["name"], "number": 1, "threads": torch.get_num_threads()}
    assert run["device_hours"] == pytest.approx(run["seconds"] / 3600, rel=1e-3)
    assert run["samples_per_second"] == pytest.approx(12 / run["starts"][0]["counted_seconds"])
    assert run["peak_memory_bytes"] > 10**8
    assert run["trained_parameters"] > 0
    assert run["loss"]["first"] > 0
    assert run["versions"]["torch"] == torch.__version__
    assert config["model_type"] == "llava_llama"
    # A release archive has no commit.
    if (REPOSITORY / ".git").exists():
        git = ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"]
        head = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
        # "+" if files differ from it.
        assert run["commit"] in (head, f"{head}+")


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("limit", [12, 1000])
def test_positions_of_the_decoder(several, limit):
    """Counted one by one. The rows hold text only, one image, and two images, and padding."""
    image = IMAGE_TOKEN_INDEX
    ids = torch.tensor([[5, 6, 7, 0, 0], [5, image, 6, 7, 0], [image, 5, 6, image, 7]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    sizes = [(30, 30), (60, 30), (30, 90)]
    tiling = Tiling(28, 4, "spatial", ((28, 56), (56, 28))) if several else Tiling(28, 4)
    inputs = {"input_ids": ids, "attention_mask": mask} | ({"image_sizes": sizes} if several else {})
    each = [tiling.tokens(size) if several else 4 for size in sizes]
    wanted = [3, 3 + each[0], 3 + each[1] + each[2]]
    assert decoder_positions(inputs, tiling, limit).tolist() == [min(number, limit) for number in wanted]


def test_a_killed_run_is_paid_for(tiny, train_flags, tmp_path, monkeypatch):
    """The starts of a run are summed; steps that were lost stay in the sum of seconds."""
    output = tmp_path / "out"
    flags = {"tune_mm_mlp_adapter": True, "save_strategy": "steps", "save_steps": 2}
    original = LLaVATrainer.training_step

    def die(self, *args, **kwargs):
        if self.state.global_step == 2:
            time.sleep(0.5)
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(LLaVATrainer, "training_step", die)
    monkeypatch.setattr("llava.train.run_meter._EVERY", 0.0)
    monkeypatch.setattr("llava.train.run_meter.peak_memory", lambda device: 3 * 10**9)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(argv=train_flags(output, max_steps=5, **flags))
    killed = read(output)
    assert not killed["finished"]
    assert [(one["from_step"], one["to_step"]) for one in killed["starts"]] == [(0, 3)]
    # Counted at the checkpoint of step 2; three samples a step.
    assert killed["starts"][0]["samples"] == 6
    # As an earlier version recorded a start that was killed in its first step.
    earlier = {"from_step": 0, "to_step": 0, "seconds": 1.0, "samples": 0, "tokens": 0}
    (output / RUN_FILE).write_text(json.dumps(killed | {"starts": [earlier, *killed["starts"]]}))
    monkeypatch.setattr(LLaVATrainer, "training_step", original)
    monkeypatch.setattr("llava.train.run_meter.peak_memory", lambda device: 2 * 10**9)
    train(argv=train_flags(output, max_steps=5, **flags))
    run = read(output)
    assert run["finished"]
    assert run["starts"][:2] == [earlier, *killed["starts"]]
    assert [(one["from_step"], one["to_step"], one["samples"]) for one in run["starts"][2:]] == [(2, 5, 9)]
    assert run["seconds"] == pytest.approx(sum(one["seconds"] for one in run["starts"]))
    assert run["samples"] == 15
    assert run["steps"] == 5
    # The seconds after the checkpoint had no samples that were counted.
    first, second = run["starts"][1:]
    assert first["counted_seconds"] < first["seconds"]
    assert run["samples_per_second"] == pytest.approx(15 / (first["counted_seconds"] + second["counted_seconds"]))
    assert [one["peak_memory_bytes"] for one in (first, second, run)] == [3 * 10**9, 2 * 10**9, 3 * 10**9]


@pytest.mark.parametrize(("changes", "starts"), [({}, 2), ({"learning_rate": 1e-4}, 1)])
def test_a_run_that_is_killed_before_its_first_checkpoint(tiny, train_flags, tmp_path, monkeypatch, changes, starts):
    """Was paid for too; a start with other settings was another run."""
    output, original = tmp_path / "out", LLaVATrainer.training_step

    def die(self, *args, **kwargs):
        if self.state.global_step == 1:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(LLaVATrainer, "training_step", die)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(argv=train_flags(output, tune_mm_mlp_adapter=True, max_steps=2))
    monkeypatch.setattr(LLaVATrainer, "training_step", original)
    train(argv=train_flags(output, tune_mm_mlp_adapter=True, max_steps=2, **changes))
    run = read(output)
    assert [one["from_step"] for one in run["starts"]] == [0] * starts
    assert run["seconds"] == pytest.approx(sum(one["seconds"] for one in run["starts"]))


def test_another_run_in_the_folder_is_not_added(tiny, train_flags, tmp_path):
    """A run that starts from step 0 begins a new file."""
    output = tmp_path / "out"
    output.mkdir()
    (output / RUN_FILE).write_text(json.dumps({"starts": [{"seconds": 1e9}]}))
    train(argv=train_flags(output, tune_mm_mlp_adapter=True, max_steps=1))
    assert read(output)["seconds"] < 1e8


def test_a_disk_that_cannot_take_it_does_not_stop_the_run(tiny, train_flags, tmp_path, monkeypatch, capsys):
    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llava.train.run_meter.write_json", full)
    output = tmp_path / "out"
    train(argv=train_flags(output, tune_mm_mlp_adapter=True, max_steps=2))
    assert (output / "mm_projector.bin").is_file()
    assert capsys.readouterr().err.count("run.json cannot be written") == 1
