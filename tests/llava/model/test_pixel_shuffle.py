"""A projector that changes the number of image tokens: built, trained, answered with, priced, and not exported."""

import json
import shutil

import pytest
import torch

from llava.conversation import get_template
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.questions import Question
from llava.model.builder import load_pretrained_model
from llava.model.export import ExportError, check_exportable
from llava.model.multimodal_projector.pixel_shuffle import pixel_shuffle
from llava.model.multimodal_projector.types import ProjectorError
from llava.train.train import train

SHUFFLE = {"mm_projector_type": "pixel_shuffle2x"}
LORA = {"lora_enable": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0, "tune_layers": "0,3"}


def by_loops(features, factor):
    """Each token is the square's features, row by row; tokens go row by row too."""
    side = int(features.shape[0] ** 0.5)
    grid = features.reshape(side, side, -1)
    return torch.stack(
        [
            torch.cat([grid[y + i, x + j] for i in range(factor) for j in range(factor)])
            for y in range(0, side, factor)
            for x in range(0, side, factor)
        ]
    )


@pytest.mark.parametrize(("side", "factor"), [(2, 2), (6, 2), (6, 3)])
def test_shuffle_equals_the_loops(side, factor):
    features = torch.randn(3, side**2, 5)
    found = pixel_shuffle(features, factor)
    assert found.shape == (3, (side // factor) ** 2, 5 * factor**2)
    assert torch.equal(found, torch.stack([by_loops(image, factor) for image in features]))
    assert torch.equal(pixel_shuffle(features[0], factor), found[0])


@pytest.mark.parametrize(("tokens", "words"), [(9, "a grid of 3 x 3"), (5, "no square grid"), (17, "no square grid")])
def test_other_grids_are_refused(tokens, words):
    with pytest.raises(ProjectorError, match=words):
        pixel_shuffle(torch.randn(1, tokens, 4), 2)


def losses(output):
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.fixture(scope="module")
def runs(tiny, train_flags, tmp_path_factory):
    """Stage 1, and a LoRA that starts from its projector."""
    root = tmp_path_factory.mktemp("shuffle")
    stage_1 = {"tune_mm_mlp_adapter": True, "version": "plain", "data_path": tiny.captions}
    train(argv=train_flags(root / "stage1", **SHUFFLE, **stage_1))
    file = root / "stage1" / "mm_projector.bin"
    train(argv=train_flags(root / "lora", **SHUFFLE, **LORA, pretrain_mm_mlp_adapter=file))
    return root


@pytest.fixture(scope="module")
def answerer(runs, tiny):
    tokenizer, model, processor, _ = load_pretrained_model(str(runs / "lora"), str(tiny.llm), device="cpu")
    return tokenizer, model, processor


def test_trained_files(runs, tiny):
    weights = torch.load(runs / "stage1" / "mm_projector.bin", weights_only=True)
    assert {name.split("mm_projector.")[1]: tuple(w.shape) for name, w in weights.items()} == {
        "proj.weight": (32, 4 * 24)
    }
    assert json.loads((runs / "lora" / "config.json").read_text())["mm_projector_type"] == "pixel_shuffle2x"
    stage_1 = load_pretrained_model(str(runs / "stage1"), str(tiny.llm), device="cpu")[1]
    trained = load_pretrained_model(str(runs / "lora"), str(tiny.llm), device="cpu")[1]
    first, second = (model.get_model().mm_projector.proj.weight for model in (stage_1, trained))
    assert torch.equal(first, weights["model.mm_projector.proj.weight"])
    assert not torch.equal(first, second)


def test_an_image_takes_a_quarter_of_the_tokens(answerer):
    _, model, _ = answerer
    assert model.get_vision_tower().num_patches == 4
    assert model.image_tokens == 1
    assert model.encode_images(torch.randn(2, 3, 28, 28)).shape == (2, 1, 32)


def test_text_only_model_has_no_image_tokens(runs, tiny):
    assert load_pretrained_model(str(runs / "lora"), str(tiny.llm), device="cpu", text_only=True)[1].image_tokens == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mm_vision_select_feature": "cls_patch"}, "returns 5 tokens, no square grid"),
        ({"mm_projector_type": "pixel_shuffle3x"}, "returns 4 tokens, a grid of 2 x 2"),
        ({"mm_projector_type": "pixel_shuffle"}, "allowed: linear, mlpNx_gelu .*, identity, pixel_shuffleNx"),
    ],
)
def test_towers_that_do_not_fit_are_refused_before_weights(train_flags, tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr("llava.train.run.load_base", lambda *a, **k: pytest.fail("weights were about to be loaded"))
    with pytest.raises(SystemExit, match=words):
        train(argv=train_flags(tmp_path / "out", **SHUFFLE | changes))


def test_projector_file_of_another_type(runs, train_flags, tmp_path):
    file = runs / "stage1" / "mm_projector.bin"
    with pytest.raises(SystemExit, match="the file looks like --mm_projector_type pixel_shuffle2x"):
        train(argv=train_flags(tmp_path / "a", pretrain_mm_mlp_adapter=file))
    other = tmp_path / "linear.bin"
    torch.save({"mm_projector.weight": torch.zeros(32, 24), "mm_projector.bias": torch.zeros(32)}, other)
    with pytest.raises(SystemExit, match="looks like --mm_projector_type linear"):
        train(argv=train_flags(tmp_path / "b", **SHUFFLE, pretrain_mm_mlp_adapter=other))


def test_cached_features_give_the_same_loss(train_flags, runs, tmp_path):
    """The cache holds the tower's features, before the shuffle."""
    file = runs / "stage1" / "mm_projector.bin"
    flags = train_flags(
        tmp_path / "out", **SHUFFLE, **LORA, pretrain_mm_mlp_adapter=file, vision_feature_cache=tmp_path
    )
    train(argv=flags)
    losses = [
        [
            entry["loss"]
            for entry in json.loads((folder / "trainer_state.json").read_text())["log_history"]
            if "loss" in entry
        ]
        for folder in (runs / "lora", tmp_path / "out")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=2e-4)


def test_batched_answers_equal_one_by_one(answerer, tiny):
    tokenizer, model, processor = answerer
    ours = Answerer(model, tokenizer, processor, get_template("v1"), tiny.images, Generation(8))
    assert ours.image_tokens == 1
    rows = [("Where is the red line?", "3.png"), ("Is there a circle please?", "5.png"), ("Where is it?", None)]
    questions = [Question(i, i, text, image) for i, (text, image) in enumerate(rows * 2)]
    one_by_one = [ours.answer([question])[0] for question in questions]
    assert ours.answer(questions) == one_by_one
    assert len(set(one_by_one)) > 1


def test_plan_prices_fewer_tokens_and_the_wider_layer(command, runs, tiny, tmp_path):
    flags = ("--tune-layers", "0,3", "--lora-r", 4, "--text-tokens", 20, "--samples", 10, "--tflops", 1)
    model, plans = ("--model-path", tiny.llm), {}
    for kind in ("pixel_shuffle2x", "linear"):
        output, tower = tmp_path / f"{kind}.json", ("--vision-tower", tiny.tower)
        command("plan", *model, *tower, "--mm-projector-type", kind, *flags, "--output", output)
        plans[kind] = json.loads(output.read_text())
    shuffled, linear = plans["pixel_shuffle2x"], plans["linear"]
    assert (shuffled["assumed"]["image_tokens"], linear["assumed"]["image_tokens"]) == (1, 4)
    rows = [plan["selections"][0] for plan in (shuffled, linear)]
    assert rows[0]["parameters"]["projector"] == 4 * 24 * 32
    assert rows[0]["plain"]["flops_per_sample"]["forward"] < rows[1]["plain"]["flops_per_sample"]["forward"]
    with pytest.raises(SystemExit, match="returns 4 tokens, a grid of 2 x 2"):
        command(
            "plan", "--model-path", tiny.llm, "--vision-tower", tiny.tower, "--mm-projector-type", "pixel_shuffle3x"
        )
    # Of the tower that is not here, CLIP-336's grid of 24 x 24 is assumed.
    command(
        "plan", "--model-path", tiny.llm, "--mm-projector-type", "pixel_shuffle2x", "--output", tmp_path / "clip.json"
    )
    assert json.loads((tmp_path / "clip.json").read_text())["assumed"]["image_tokens"] == 144


def test_stock_transformers_cannot_hold_it(answerer):
    _, model, _ = answerer
    with pytest.raises(
        ExportError, match="the projector is 'pixel_shuffle2x', transformers' LLaVA has 'mlp2x_gelu' only"
    ):
        check_exportable(model.config, model.get_vision_tower())


def test_another_tower_that_does_not_fit_is_refused_before_weights_are_read(runs, tiny, tmp_path, monkeypatch):
    shutil.copytree(tiny.tower, tmp_path, dirs_exist_ok=True)
    config = json.loads((tiny.tower / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_size": 42}))
    monkeypatch.setattr(
        "transformers.modeling_utils.PreTrainedModel._load_pretrained_model", lambda *a, **k: pytest.fail("read")
    )
    with pytest.raises(ProjectorError, match="returns 9 tokens, a grid of 3 x 3"):
        load_pretrained_model(str(runs / "lora"), str(tiny.llm), device="cpu", vision_tower=str(tmp_path))
