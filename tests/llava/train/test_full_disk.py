"""A disk that fills up while the trainer saves: one error, and no half checkpoint is left."""

import pytest

from llava.files import DiskFullError


@pytest.mark.parametrize("save", ["steps", "no"])
@pytest.mark.parametrize("lora", [True, False])
def test_saving_on_a_full_disk(lora, save, small_disk, train_flags):
    from llava.train.train import train

    output = small_disk / "out"
    flags = {"lora_enable": lora, "lora_r": 128, "tune_layers": "0-3", "max_steps": 1, "save_steps": 1}
    wanted = "out/checkpoint-1" if save == "steps" else "out"
    message = rf"disk is full: .*/{wanted} needs more than [\d.]+ [kM]B, and .* has [\d.]+ kB free, [\d.]+ [kM]B too"
    with pytest.raises((SystemExit, DiskFullError), match=message):
        train(argv=train_flags(output, save_strategy=save, **flags))
    # The settings of the run are written at its start, its cost while it trains, its state before the result.
    assert {file.name for file in output.rglob("*")} <= {"run_settings.json", "run.json", "trainer_state.json"}
