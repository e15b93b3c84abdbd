"""Tower and projector as GGUF: what llama.cpp computes from the file, written down again, gives our features."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llava.checkpoint.folder import open_checkpoint
from llava.model.builder import load_checkpoint

pytest.importorskip("gguf", reason="pip install -e '.[gguf]'")

from gguf import GGUFReader

from llava.model.gguf.export import prepare_export
from llava.model.gguf.projector import projector_problems
from tests.llava.model.gguf.clip_cpp import REQUIRED_KEYS, embeddings, names_of


def write(checkpoint, output, **settings):
    prepared = prepare_export(checkpoint, "tiny", conv_mode="v1", **settings)
    prepared.write(output)
    return GGUFReader(output / "mmproj.gguf"), prepared.notes


@pytest.fixture
def folder_of(tiny_llava, make_bunny):
    """A whole tiny model with a CLIP or a SigLIP tower."""
    return lambda tower: tiny_llava if tower == "clip" else make_bunny("bunny-phi3")


@pytest.mark.parametrize("layer", [-2, -1, 1])
@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_features(tower, layer, folder_of, tmp_path):
    folder = shutil.copytree(folder_of(tower), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"mm_vision_select_layer": layer}
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(folder)
    reader, notes = write(checkpoint, tmp_path / "gguf")
    assert ["#25814" in note for note in notes] == [True] * (tower == "clip")
    assert reader.fields.keys() >= REQUIRED_KEYS
    depth = layer % 4
    assert reader.fields["clip.vision.block_count"].contents() == depth
    assert {tensor.name for tensor in reader.tensors} == names_of(tower, depth)
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    _, model, _, _ = load_checkpoint(checkpoint, device="cpu")
    with torch.no_grad():
        expected = model.encode_images(pixels)[0]
        found = embeddings(reader, pixels, F.gelu)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_types(tiny_llava, tmp_path):
    reader, _ = write(open_checkpoint(tiny_llava), tmp_path / "gguf", dtype=torch.float16)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    for name in ("v.patch_embd.weight", "v.position_embd.weight", "v.class_embd", "mm.0.bias", "v.blk.0.ln1.weight"):
        assert kinds[name] == "F32", name
    for name in ("v.blk.0.attn_q.weight", "mm.0.weight", "mm.2.weight"):
        assert kinds[name] == "F16", name


def test_trained_tower_and_loras_projector(tiny_llava, tiny_lora, tiny, tmp_path):
    """The weights in the checkpoint win over those of the tower's folder and of the base."""
    folder = shutil.copytree(tiny_llava, tmp_path / "trained")
    _, model, _, _ = load_checkpoint(open_checkpoint(tiny_llava), device="cpu")
    network = model.get_vision_tower().vision_tower
    with torch.no_grad():
        network.encoder.layers[0].mlp.fc1.bias.fill_(7)
    model.config.unfreeze_mm_vision_tower = True
    model.save_pretrained(folder)
    reader, _ = write(open_checkpoint(folder), tmp_path / "gguf")
    assert next(t for t in reader.tensors if t.name == "v.blk.0.ffn_up.bias").data.tolist() == [7] * 32

    checkpoint = open_checkpoint(tiny_lora)
    reader, _ = write(checkpoint, tmp_path / "lora")
    _, model, _, _ = load_checkpoint(checkpoint, device="cpu")
    expected = model.get_model().mm_projector[2].weight.detach().numpy()
    assert np.array_equal(next(t for t in reader.tensors if t.name == "mm.2.weight").data, expected)


def test_a_projector_file_with_other_prefixes(parity, tmp_path):
    source = shutil.copytree(parity / "c_pretrain", tmp_path / "source")
    config = json.loads((source / "config.json").read_text()) | {"mm_vision_tower": str(parity / "tiny-clip-56")}
    (source / "config.json").write_text(json.dumps(config))
    weights = torch.load(source / "mm_projector.bin", weights_only=True)
    torch.save({name.removeprefix("model."): value for name, value in weights.items()}, source / "mm_projector.bin")
    write(open_checkpoint(source, parity / "tiny-vicuna"), tmp_path / "gguf")
    names = {tensor.name for tensor in GGUFReader(tmp_path / "gguf/mmproj.gguf").tensors}
    assert {"mm.0.weight", "mm.0.bias", "mm.2.weight", "mm.2.bias"} <= names


def test_notes(tiny_llava, tmp_path):
    folder = shutil.copytree(tiny_llava, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"image_aspect_ratio": None}
    (folder / "config.json").write_text(json.dumps(config))
    _, notes = write(open_checkpoint(folder), tmp_path / "gguf")
    assert "llama.cpp pads images to a square; this model was trained with image_aspect_ratio 'square'" in notes


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mm_projector_type": "linear"}, "the projector is 'linear', llama.cpp's mtmd has 'mlp2x_gelu' only"),
        ({"mm_vision_select_feature": "cls_patch"}, "llama.cpp drops the class token"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end"),
    ],
)
def test_what_mtmd_lacks_is_refused(values, words, tiny_llava, tmp_path):
    folder = shutil.copytree(tiny_llava, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"{words}.*; --text-only exports the language model alone"):
        prepare_export(open_checkpoint(folder), "tiny")
    assert list(prepare_export(open_checkpoint(folder), "tiny", text_only=True).files) == ["model.gguf"]


def test_other_towers_and_views_are_refused():
    from llava.model.multimodal_encoder.efficientnet_encoder import EfficientNetLiteConfig, EfficientNetLiteTower

    config = SimpleNamespace(mm_projector_type="mlp2x_gelu", image_aspect_ratio="anyres")
    problems = projector_problems(config, EfficientNetLiteTower("lite", EfficientNetLiteConfig(), config))
    assert [problem.split(";")[0] for problem in problems] == [
        "llama.cpp's mtmd has no vision model of type 'efficientnet_lite' (the tower lite)",
        "image_aspect_ratio is 'anyres'",
    ]
