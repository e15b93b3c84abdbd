import json
import os
import shutil

import pytest

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.identity import file_state
from llava.checkpoint.opened import CheckpointError


def model_state(folder, base=None, tower=None, sees=True):
    return file_state(open_checkpoint(folder, base), tower, sees)


@pytest.fixture
def lora(parity, tmp_path):
    """Upstream's LoRA folder with copies of its base and tower."""
    for name in ("c_lora", "tiny-vicuna"):
        shutil.copytree(parity / name, tmp_path / name)
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower/model.safetensors").write_bytes(b"weights")
    (tmp_path / "tower/preprocessor_config.json").write_text("{}")
    for name, key, folder in (
        ("adapter_config.json", "base_model_name_or_path", "tiny-vicuna"),
        ("config.json", "mm_vision_tower", "tower"),
    ):
        file = tmp_path / "c_lora" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: str(tmp_path / folder)}))
    return tmp_path


def touched(file):
    os.utime(file, ns=(1, 1))


def written(file):
    file.write_text("{{ messages }}")


def changed(file):
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_aspect_ratio": "square"}))


@pytest.mark.parametrize(
    ("change", "file"),
    [
        (changed, "c_lora/config.json"),
        (changed, "c_lora/adapter_config.json"),
        (touched, "c_lora/adapter_model.bin"),
        (touched, "c_lora/non_lora_trainables.bin"),
        (touched, "tiny-vicuna/model.safetensors"),
        (changed, "tiny-vicuna/tokenizer_config.json"),
        (written, "tiny-vicuna/chat_template.jinja"),
        (touched, "tower/model.safetensors"),
        (changed, "tower/preprocessor_config.json"),
    ],
)
def test_a_change_of_any_part_is_another_state(lora, change, file):
    before = model_state(lora / "c_lora")
    change(lora / file)
    after = model_state(lora / "c_lora")
    assert before["folders"] == after["folders"]
    differ = [name for name in after["files"] if before["files"].get(name) != after["files"][name]]
    part = {"c_lora": "model", "tiny-vicuna": "base"}.get(file.split("/")[0], "tower")
    assert differ == [f"{part}/{file.split('/')[1]}"]


def test_what_changes_no_answer_is_no_other_state(lora):
    before = model_state(lora / "c_lora", sees=False)
    for file in ("c_lora/config.json", "tiny-vicuna/tokenizer.model"):
        touched(lora / file)
    touched(lora / "tower/model.safetensors")
    (lora / "c_lora/trainer_state.json").write_text("{}")
    assert model_state(lora / "c_lora", sees=False) == before


def test_the_base_and_the_tower_that_flags_name_win(lora):
    shutil.copytree(lora / "tiny-vicuna", lora / "other")
    shutil.move(lora / "tower", lora / "moved")
    state = model_state(lora / "c_lora", lora / "other", str(lora / "moved"))
    assert state["folders"] == {
        "model": str(lora / "c_lora"),
        "base": str(lora / "other"),
        "tower": str(lora / "moved"),
    }
    # A tower that is not here, as one of the hub, is told by its name.
    assert model_state(lora / "c_lora")["folders"]["tower"] == str(lora / "tower")
    shutil.rmtree(lora / "tiny-vicuna")
    with pytest.raises(CheckpointError, match="give --model-base the folder of that model"):
        model_state(lora / "c_lora")
