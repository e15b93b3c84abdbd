"""Tensors copied from file to file are the same tensors."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.checkpoint import write
from llava.checkpoint.tensors import TensorFileError, tensors_in
from llava.checkpoint.write import write_shards


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return {
        "odd": torch.randn(3).to(torch.bfloat16),
        "a": torch.randn(5, 7),
        "b": torch.randn(4, 3).to(torch.float16),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(7),
        "flag": torch.tensor([True, False, True]),
        "c": torch.randn(2, 9, dtype=torch.float64),
    }


def equal(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert torch.equal(tensor, second[name]), name


def loaded(folder):
    result = {}
    for file in folder.glob("*.safetensors"):
        result |= load_file(file)
    return result


@pytest.mark.parametrize("in_kernel", [True, False])
def test_one_file(tensors, tmp_path, monkeypatch, in_kernel):
    if not in_kernel:

        def refuse(*args, **kwargs):
            raise OSError("two file systems")

        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
        monkeypatch.setattr(write, "_CHUNK", 16)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    save_file(tensors, tmp_path / "in" / "model.safetensors")
    shards = tensors_in(tmp_path / "in").shards
    total = write_shards(shards, tmp_path / "out", "copying")
    assert total == sum(t.numel() * t.itemsize for t in tensors.values())
    equal(loaded(tmp_path / "out"), tensors)
    equal(tensors_in(tmp_path / "in").loaded(), tensors)


def test_shards_bin_files_and_shards_left_empty(tensors, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    parts = [["odd", "a"], ["b"], ["empty", "scalar", "flag", "c"]]
    weight_map = {}
    for i, names in enumerate(parts, start=1):
        file = f"pytorch_model-{i:05d}-of-00003.bin"
        torch.save({name: tensors[name] for name in names}, source / file)
        weight_map |= dict.fromkeys(names, file)
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    shards = [[stored for stored in shard if stored.name != "b"] for shard in tensors_in(source).shards]
    write_shards(shards, out, "copying")
    assert sorted(file.name for file in out.iterdir()) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    rest = {name: tensor for name, tensor in tensors.items() if name != "b"}
    equal(loaded(out), rest)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(rest)
    for name, file in index["weight_map"].items():
        assert name in load_file(out / file)


def test_cast_leaves_integers(tensors, tmp_path):
    save_file(tensors, tmp_path / "model.safetensors")
    for name, stored in tensors_in(tmp_path).by_name.items():
        wanted = tensors[name].to(torch.bfloat16) if tensors[name].is_floating_point() else tensors[name]
        equal({name: stored.cast(torch.bfloat16).tensor()}, {name: wanted})


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(TensorFileError, match="holds no weights"):
        tensors_in(tmp_path)
