"""Folders that cannot be loaded say so in one clear error, before weights are read."""

import shutil

import pytest
import torch

from llava.checkpoint.folder import open_checkpoint
from llava.checkpoint.opened import CheckpointError, Kind
from llava.model.builder import load_pretrained_model


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
