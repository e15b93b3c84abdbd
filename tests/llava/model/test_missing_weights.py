import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from llava.checkpoint.opened import CheckpointError
from llava.model.builder import load_pretrained_model


def without(folder, target, part):
    """A copy of a checkpoint that lacks the weights whose name holds `part`."""
    shutil.copytree(folder, target)
    file = target / "model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if part not in name}
    save_file(weights, file, metadata={"format": "pt"})
    return target


@pytest.mark.parametrize("part", ["layers.3.mlp.down_proj", "mm_projector.0", "model.norm"])
def test_a_missing_weight_is_an_error(tiny_llava, tmp_path, part):
    broken = without(tiny_llava, tmp_path / "broken", part)
    with pytest.raises(CheckpointError, match=r"broken is not whole: \d+ weights") as caught:
        load_pretrained_model(str(broken), device="cpu")
    assert part in str(caught.value)


def test_weights_that_do_not_fit_the_config_are_named(tiny_llava, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_llava, broken)
    config = json.loads((broken / "config.json").read_text())
    config["intermediate_size"] += 8
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"do not fit its config\.json") as caught:
        load_pretrained_model(str(broken), device="cpu")
    assert "mlp.down_proj" in str(caught.value)


def test_layers_that_the_config_does_not_have_are_an_error(tiny_llava, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_llava, broken)
    config = json.loads((broken / "config.json").read_text())
    config["num_hidden_layers"] -= 1
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"layers that its config\.json has no place for"):
        load_pretrained_model(str(broken), device="cpu")


def test_a_whole_checkpoint_loads_without_a_word(tiny_llava, caplog):
    load_pretrained_model(str(tiny_llava), device="cpu")
    assert "LOAD REPORT" not in caplog.text
