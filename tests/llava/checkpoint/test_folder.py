"""Folders that cannot be loaded say so in one clear error, before weights are read."""

import json
import shutil
import subprocess

import pytest
import torch

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import CheckpointError, Kind
from llava.model.builder import load_pretrained_model
from tests.conftest import REPOSITORY


@pytest.fixture
def folder(tiny_llava, tmp_path):
    return shutil.copytree(tiny_llava, tmp_path / "copy")


def test_kinds(parity, tiny_llava):
    assert open_checkpoint(tiny_llava).kind is Kind.FULL
    assert open_checkpoint(parity / "c_lora", with_base=False).kind is Kind.LORA
    assert open_checkpoint(parity / "c_pretrain", with_base=False).kind is Kind.PROJECTOR


def test_interrupted_writes(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match=r"not whole: model\.safetensors should be"):
        load_pretrained_model(str(folder), device="cpu")
    weights.write_bytes(whole[:4])
    with pytest.raises(CheckpointError, match="no readable header"):
        load_pretrained_model(str(folder), device="cpu")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"neither weights nor mm_projector\.bin"):
        load_pretrained_model(str(folder), device="cpu")
    (folder / "config.json").write_text('{"model_type": "llava_')
    with pytest.raises(CheckpointError, match=r"config.json is not valid JSON"):
        load_pretrained_model(str(folder), device="cpu")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_pretrained_model(str(folder / "nothing"), device="cpu")


VIEWS = {
    "image_aspect_ratio": "anyres_max_9",
    "mm_patch_merge_type": "spatial_unpad",
    "image_grid_pinpoints": [[336, 672]],
}


@pytest.mark.parametrize(
    "program",
    [
        ("llava.eval.model_vqa_loader", "--model-path", "{}", "--question-file", "none", "--answers-file", "new"),
        ("visual_region", "score", "--model-path", "{}", "--data-path", "none", "--output", "new"),
        ("llava.train.train", "--model_name_or_path", "{}", "--data_path", "none", "--output_dir", "new"),
    ],
    ids=lambda program: program[0],
)
def test_images_that_are_not_supported(folder, python, program, tmp_path):
    """LLaVA-OneVision's: one line that names what is supported."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | VIEWS | {"image_aspect_ratio": "anyres_max_9"}))
    command = [python, "-m", *(word.format(folder) for word in program)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    (line,) = (line for line in run.stderr.splitlines() if "anyres" in line)
    assert (
        f"{folder}: its config.json has image_aspect_ratio 'anyres_max_9', mm_patch_merge_type 'spatial_unpad'" in line
    )
    assert "image_grid_pinpoints [[336, 672]], which is not supported; supported: square, pad, anyres" in line
    assert "Traceback" not in run.stderr


def test_what_has_no_effect_on_one_view_is_accepted(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | VIEWS | {"image_aspect_ratio": "pad"}))
    assert open_checkpoint(folder).kind is Kind.FULL


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"mm_patch_merge_type": "spatial_max"},
            "its config.json has mm_patch_merge_type 'spatial_max' is not",
        ),
        (
            {"image_grid_pinpoints": "(1x1),...,(6x6)"},
            "its config.json has image_grid_pinpoints .* is not a list",
        ),
        ({"model_type": "llava_onevision"}, r"LLaVA-OneVision shrinks the tokens .*; LLaVA-1.5 and 1.6 are"),
    ],
)
def test_views_that_are_not_supported(folder, changes, words):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | VIEWS | {"image_aspect_ratio": "anyres"} | changes))
    with pytest.raises(ValueError, match=words):
        open_checkpoint(folder)


def test_lora_without_its_projector(parity, tmp_path):
    folder = shutil.copytree(parity / "c_lora", tmp_path / "lora")
    (folder / "non_lora_trainables.bin").unlink()
    with pytest.raises(CheckpointError, match=r"needs non_lora_trainables\.bin"):
        load_pretrained_model(str(folder), str(parity / "tiny-vicuna"), device="cpu")


def test_lora_without_a_base(parity):
    with pytest.raises(CheckpointError, match="give --model-base"):
        load_pretrained_model(str(parity / "c_lora"), device="cpu")


def test_name_of_the_folder_decides_nothing(tiny_llava, tmp_path):
    folder = shutil.copytree(tiny_llava, tmp_path / "some-lora-text-model")
    ids = torch.tensor([[1, 5, 6]])
    first, second = (load_pretrained_model(str(f), device="cpu")[1](input_ids=ids).logits for f in (tiny_llava, folder))
    assert torch.equal(first, second)
