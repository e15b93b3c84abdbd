"""Training with several views per image: the newline trains and is saved, and no option of speed changes the loss."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from llava.checkpoint.opened import CheckpointError
from llava.data.dataset import LazySupervisedDataset
from llava.data.feature_cache import FeatureCache
from llava.data.records import open_records
from llava.images import open_image
from llava.mm_utils import process_image
from llava.model.builder import load_pretrained_model
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.train.llava_trainer import LLaVATrainer
from llava.train.train import train
from tests.fixtures.anyres import PINPOINTS, SHAPES

LORA = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0, "tune_layers": "0,3"}


@pytest.fixture
def flags(anyres, train_flags):
    def make(output, **changes):
        views = {"image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial_unpad", "model_max_length": 512}
        files = {"data_path": anyres.data, "image_folder": anyres.images, "vision_tower": anyres.tower}
        return train_flags(output, **views | files | changes)

    return make


def losses(output):
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def logits_of(path, base, anyres):
    _, model, processor, _ = load_pretrained_model(str(path), base and str(base), device="cpu")
    image = open_image(anyres.images / "3.png")
    pixels = process_image(image, processor, "anyres", model.tiling)
    with torch.no_grad():
        return model(input_ids=torch.tensor([[1, 5, -200, 7]]), images=[pixels], image_sizes=[image.size]).logits


def test_both_stages(anyres, flags, tmp_path, capsys):
    """Stage 1 trains and saves the newline with the projector, stage 2 goes on from it."""
    kept = {}

    def keep(**arguments):
        kept["start"] = {n: p.detach().clone() for n, p in arguments["model"].named_parameters() if p.requires_grad}
        kept["trainer"] = LLaVATrainer(**arguments)
        return kept["trainer"]

    stage_1 = {"tune_mm_mlp_adapter": True, "version": "plain", "data_path": anyres.captions, "max_steps": 12}
    train(argv=flags(tmp_path / "1", **stage_1), make_trainer=keep)
    found = losses(tmp_path / "1")
    assert all(map(math.isfinite, found))
    assert sum(found[-3:]) < sum(found[:3])
    saved = torch.load(tmp_path / "1/mm_projector.bin", weights_only=True)
    assert set(kept["start"]) == set(saved)
    assert not torch.equal(saved["model.image_newline"], kept["start"]["model.image_newline"])
    config = json.loads((tmp_path / "1/config.json").read_text())
    assert config["image_grid_pinpoints"] == PINPOINTS
    counted = sum(kept["trainer"].tiling.tokens(size) for size in SHAPES)
    run = json.loads((tmp_path / "1/run.json").read_text())
    texts = sum(len(item["input_ids"]) - 1 for item in kept["trainer"].train_dataset)
    assert (run["samples"], run["tokens"]) == (4 * 8, 4 * (counted + texts))

    stage_2 = LORA | {"pretrain_mm_mlp_adapter": tmp_path / "1/mm_projector.bin", "max_steps": 8}
    train(argv=flags(tmp_path / "2", **stage_2), make_trainer=keep)
    newline = kept["start"]["base_model.model.model.image_newline"]
    assert torch.equal(newline, saved["model.image_newline"])
    assert "projector" in capsys.readouterr().out
    trained = kept["trainer"].model.get_base_model()
    assert not torch.equal(trained.get_model().image_newline, newline)
    loaded = load_pretrained_model(str(tmp_path / "2"), str(anyres.llm), device="cpu")[1]
    assert torch.equal(loaded.get_model().image_newline, trained.get_model().image_newline)
    # The folder of stage 1, too, is a checkpoint.
    assert torch.isfinite(logits_of(tmp_path / "1", anyres.llm, anyres)).all()


def test_a_whole_model_goes_on_from_a_whole_model(anyres, flags, tmp_path):
    output, base = tmp_path / "full", anyres.llava
    train(argv=flags(output, model_name_or_path=base, vision_tower=None, max_steps=6, learning_rate=1e-3))
    before, after = (load_file(folder / "model.safetensors")["model.image_newline"] for folder in (base, output))
    assert not torch.equal(before, after)
    found = losses(output)
    assert found[-1] < found[0]
    assert not torch.equal(logits_of(output, None, anyres), logits_of(base, None, anyres))


def test_options_of_speed_leave_the_loss_alone(flags, tmp_path):
    """Padded or not, shared beginnings, cached features, other kernels: batches of different numbers of views."""
    found = {}
    for name, changes in {
        "padded": {"padding_free": False},
        "joined": {"share_prefix": False},
        "shared": {"gradient_checkpointing": "auto"},
        "cached": {"vision_feature_cache": tmp_path / "features", "gradient_checkpointing": True, "kernels": "cpu"},
    }.items():
        train(argv=flags(tmp_path / name, **LORA | changes, max_steps=3))
        found[name] = losses(tmp_path / name)
    for name, values in found.items():
        assert values == pytest.approx(found["padded"], abs=2e-4), name


def test_a_lora_makes_several_views_of_a_model_with_one(anyres, flags, tmp_path):
    """Its base has no newline; the LoRA's own is loaded."""
    kept = {}

    def keep(**arguments):
        kept["trainer"] = LLaVATrainer(**arguments)
        return kept["trainer"]

    base, lora = tmp_path / "base", tmp_path / "lora"
    train(argv=flags(base, mm_patch_merge_type="flat", image_aspect_ratio="pad", tune_layers="0", max_steps=1))
    train(argv=flags(lora, **LORA, model_name_or_path=base, vision_tower=None, max_steps=1), make_trainer=keep)
    newline = kept["trainer"].model.get_base_model().model.image_newline
    loaded = load_pretrained_model(str(lora), str(base), device="cpu")[1]
    assert torch.equal(loaded.model.image_newline, newline)
    assert torch.isfinite(logits_of(lora, base, anyres)).all()
    file = lora / "non_lora_trainables.bin"
    weights = torch.load(file, weights_only=True)
    torch.save({name: value for name, value in weights.items() if "image_newline" not in name}, file)
    with pytest.raises(CheckpointError, match="holds no image_newline, which config"):
        load_pretrained_model(str(lora), str(base), device="cpu")


def test_spatial_and_flat_train_without_a_newline(flags, tmp_path):
    for merge in ("spatial", "flat"):
        train(argv=flags(tmp_path / merge, mm_patch_merge_type=merge, tune_mm_mlp_adapter=True, max_steps=2))
        saved = torch.load(tmp_path / merge / "mm_projector.bin", weights_only=True)
        assert not any("newline" in name for name in saved)
        assert json.loads((tmp_path / merge / "config.json").read_text())["mm_patch_merge_type"] == merge


def test_a_batch_of_text_decays_the_newline_too(anyres, flags, tmp_path):
    """As upstream's image of zeros: the newline has a gradient of zero, not none, for which DDP would wait."""
    kept = {}

    def keep(**arguments):
        kept["trainer"] = LLaVATrainer(**arguments)
        return kept["trainer"]

    train(argv=flags(tmp_path / "out", **LORA, max_steps=1), make_trainer=keep)
    trainer = kept["trainer"]
    texts = [item for item in map(trainer.train_dataset.__getitem__, range(15)) if "images" not in item]
    assert len(texts) == 2
    trainer.model.zero_grad()
    trainer.model(**trainer.data_collator(texts)).loss.backward()
    newline = trainer.model.get_base_model().get_model().image_newline
    assert torch.equal(newline.grad, torch.zeros_like(newline))


def test_cached_features_are_the_towers(anyres, tmp_path):
    """One row per view; the canvases are part of the key, what joins the views is not."""
    model = load_pretrained_model(str(anyres.llava), device="cpu")[1]
    tower, paths = model.get_vision_tower(), sorted(anyres.images.iterdir())
    cache = FeatureCache(tmp_path, tower, "anyres", torch.float32, model.tiling)
    assert cache.ensure(paths[:5], tower, batch_size=6) == 5
    again = FeatureCache(
        tmp_path, build_vision_tower(model.config, delay_load=True), "anyres", torch.float32, model.tiling
    )
    assert again.ensure(paths, tower) == 3
    for path, size in zip(paths, SHAPES, strict=True):
        pixels = process_image(open_image(path), tower.image_processor, "anyres", model.tiling)
        torch.testing.assert_close(again.features(path), tower(pixels), atol=1e-5, rtol=0)
        assert len(again.features(path)) == model.tiling.views(size)
    folders = set()
    for merge, pinpoints in (("spatial_unpad", PINPOINTS), ("flat", PINPOINTS), ("flat", PINPOINTS[:2])):
        model.config.mm_patch_merge_type, model.config.image_grid_pinpoints = merge, pinpoints
        folders.add(FeatureCache(tmp_path, tower, "anyres", torch.float32, model.tiling).folder)
    assert len(folders) == 2


def test_lengths_count_the_images_tokens(anyres, flags, tmp_path):
    model = load_pretrained_model(str(anyres.llava), device="cpu", load_tower=False)[1]
    records = open_records(anyres.data)
    options = (None, None, anyres.images, None, "anyres", None)
    plain, own = (
        LazySupervisedDataset(records, *options, tiling=tiling).modality_lengths for tiling in (None, model.tiling)
    )
    tokens = [model.tiling.tokens(SHAPES[i % 8]) for i in range(12)]
    tokens += [model.tiling.tokens(SHAPES[1]) + model.tiling.tokens(SHAPES[4]), 0, 0]
    assert (own - plain).tolist() == tokens
    assert own[-1] < 0
    train(argv=flags(tmp_path / "out", **LORA, group_by_modality_length=True, max_steps=2))


def test_check_counts_the_tokens_of_each_image(anyres, program, capsys):
    """The square image's sample fits the length, the widest one's does not."""
    words = ["--data_path", anyres.data, "--image_folder", anyres.images, "--model_name_or_path", anyres.llava]
    with pytest.raises(SystemExit):
        program("llava.data.check", *words, "--model_max_length", "250")
    printed = capsys.readouterr().out
    assert "labels are counted with up to 259 tokens per image" in printed
    assert "s5" in printed
    assert "s4" not in printed
    with pytest.raises(SystemExit, match="0"):
        program("llava.data.check", *words, "--model_max_length", "700")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_aspect_ratio": "pad"}, "--mm_patch_merge_type spatial_unpad is of several views per image; it needs"),
        ({"image_aspect_ratio": "anyres_max_9"}, "'anyres_max_9'; allowed: square, pad, anyres"),
        ({"image_grid_pinpoints": "[[30,56]]"}, r"\[\[30,56\]\] must be multiples of the tower's 28 pixels"),
        ({"image_grid_pinpoints": "wide"}, r"image_grid_pinpoints 'wide' is not a list of sizes"),
        ({"mm_patch_merge_type": "unpad"}, "mm_patch_merge_type 'unpad' is not supported; supported: flat, spatial"),
        ({"mm_vision_select_feature": "cls_patch"}, "needs a square grid of tokens per view, and a view has 50"),
        (
            {"image_aspect_ratio": "pad", "mm_patch_merge_type": "flat", "image_grid_pinpoints": PINPOINTS},
            "--image_grid_pinpoints .* is of several views per image",
        ),
    ],
)
def test_mistakes_are_told_before_weights_are_loaded(flags, tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr("llava.train.run.load_model", lambda *a: pytest.fail("weights were about to be loaded"))
    with pytest.raises(SystemExit, match=words):
        train(argv=flags(tmp_path / "out", **LORA | changes))


def test_a_projector_of_several_views_with_the_flags_of_one(anyres, flags, tmp_path):
    newline = {"model.image_newline": torch.zeros(32)}
    weights = load_file(anyres.llava / "model.safetensors")
    projector = {name: value for name, value in weights.items() if "mm_projector" in name}
    torch.save(projector | newline, tmp_path / "with.bin")
    torch.save(projector, tmp_path / "without.bin")
    one_view = {"image_aspect_ratio": "pad", "mm_patch_merge_type": "flat"}
    with pytest.raises(SystemExit, match=r"with\.bin holds image_newline .* --mm_patch_merge_type spat"):
        train(argv=flags(tmp_path / "no", **LORA | one_view, pretrain_mm_mlp_adapter=tmp_path / "with.bin"))
    # LLaVA-1.5's projector has none; it is drawn at random, as upstream does.
    train(argv=flags(tmp_path / "yes", **LORA, max_steps=1, pretrain_mm_mlp_adapter=tmp_path / "without.bin"))
    torch.save({"model.image_newline": torch.zeros(3)} | projector, tmp_path / "narrow.bin")
    with pytest.raises(SystemExit, match=r"narrow\.bin does not fit.* 32, the file has .*newline 3"):
        train(argv=flags(tmp_path / "no", **LORA, pretrain_mm_mlp_adapter=tmp_path / "narrow.bin"))


def test_a_base_that_is_trained_with_other_views_is_warned_of(anyres, flags, tmp_path, capsys):
    one_view = {"image_aspect_ratio": "pad", "mm_patch_merge_type": "flat", "vision_tower": None, "max_steps": 1}
    train(argv=flags(tmp_path / "out", model_name_or_path=anyres.llava, **one_view))
    said = capsys.readouterr().err
    assert "reads images with --image_aspect_ratio anyres --mm_patch_merge_type spatial_unpad; this run uses" in said
    assert "model.image_newline" not in load_file(tmp_path / "out/model.safetensors")


def test_a_length_that_cuts_images_is_warned_of(flags, tmp_path, capsys):
    train(argv=flags(tmp_path / "out", tune_mm_mlp_adapter=True, max_steps=1, model_max_length=250))
    said = "an image takes up to 259 tokens, and what lies behind --model_max_length 250 is cut off"
    assert said in capsys.readouterr().err
