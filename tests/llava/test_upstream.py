"""Deliberate differences from upstream (docs/upstream.md) that no other test shows."""

import json
import shutil

import pytest
import torch
from PIL import Image

from llava.checkpoint.folder import open_checkpoint
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import get_template
from llava.data.collate import DataCollatorForSupervisedDataset
from llava.data.dataset import LazySupervisedDataset
from llava.data.preprocess import preprocess
from llava.data.records import open_records
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.questions import Question
from llava.mm_utils import process_image
from llava.model.builder import load_pretrained_model, load_tokenizer
from llava.train.train import train


def test_the_logged_rate_is_that_of_the_step(train_flags, tmp_path):
    """Upstream logs the next step's."""
    train(argv=train_flags(tmp_path, tune_layers="0", max_steps=4, lr_scheduler_type="linear", warmup_ratio=0.25))
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    rates = [entry["learning_rate"] for entry in history if "learning_rate" in entry]
    assert rates == pytest.approx([0, 1e-2, 1e-2 * 2 / 3, 1e-2 / 3])


def test_an_unknown_token_is_not_padding(parity):
    """Upstream's mask is `ids != pad`, and its pad token is the unknown token."""
    tokenizer = load_tokenizer(parity / "llava-tiny")
    assert tokenizer.pad_token_id == tokenizer.unk_token_id == 0
    rows = [torch.tensor([1, 0, 5, 0, 6]), torch.tensor([1, 7])]
    batch = DataCollatorForSupervisedDataset(tokenizer)([{"input_ids": row, "labels": row} for row in rows])
    assert batch["attention_mask"].tolist() == [[True] * 5, [True, True, False, False, False]]
    assert batch["labels"][1].tolist() == [1, 7, *[IGNORE_INDEX] * 3]


def test_a_sample_without_words_has_a_length(parity, tmp_path):
    """Upstream's sampler ends the run."""
    empty = [{"from": "human", "value": " "}, {"from": "gpt", "value": ""}]
    (tmp_path / "data.json").write_text(json.dumps([{"id": "a", "conversations": empty}]))
    records, tokenizer = open_records(tmp_path / "data.json"), load_tokenizer(parity / "llava-tiny")
    dataset = LazySupervisedDataset(records, tokenizer, get_template("v1"), None, None, "pad", 100)
    assert dataset.modality_lengths == [-1]


def test_an_answer_in_front_is_left_out_in_every_template(parity):
    """Upstream keeps it in the format of "###" alone."""
    records = {record.id: record for record in open_records(parity / "edge.json")}
    reference = json.loads((parity / "edge.json").read_text())
    first = next(item for item in reference if item["id"] == "e_first_is_gpt")["conversations"]
    assert records["e_first_is_gpt"].turns == tuple(turn["value"] for turn in first[1:])


def test_a_caption_without_an_image_is_text(parity):
    """Upstream's `plain` shows it an image of zeros."""
    ids, _ = preprocess(["<image>", "a cat"], load_tokenizer(parity / "llava-tiny"), get_template("plain"), 0)
    assert IMAGE_TOKEN_INDEX not in ids


def test_a_long_question_is_not_cut(tiny_llava, tiny):
    """Upstream cuts a prompt to the length of training at its end, where the question is."""
    tokenizer, model, processor, _ = load_pretrained_model(str(tiny_llava), device="cpu")
    answerer = Answerer(model, tokenizer, processor, get_template("v1"), tiny.images, Generation(max_new_tokens=6))
    question = Question(0, 0, "Where is the red line?", "3.png")
    whole = answerer.answer([question])
    model.config.tokenizer_model_max_length = 20
    assert answerer.answer([question]) == whole


@pytest.mark.parametrize(("recorded", "used"), [("llava_v1", "llava_v1"), ("plain", "vicuna_v1"), (None, "vicuna_v1")])
def test_the_recorded_template_is_the_default(tiny_llava, tmp_path, recorded, used):
    """Upstream's programs have a fixed one, and look for "plain" in the folder's name."""
    folder = shutil.copytree(tiny_llava, tmp_path / "plain-llava")
    config = json.loads((folder / "config.json").read_text()) | {"conversation_template": recorded}
    (folder / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(folder).template == used


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_every_image_becomes_rgb(tiny_llava, mode):
    """Upstream's programs for ScienceQA and MMBench hand images on as they are."""
    processor = load_pretrained_model(str(tiny_llava), device="cpu")[2]
    assert process_image(Image.new(mode, (20, 30)), processor, "pad").shape == (3, 28, 28)


def test_flags_that_are_refused(tiny_llava, train_flags, tmp_path):
    """Upstream accepts each of them; what then trains is not what they say."""
    flags = {
        "freeze_backbone": True,
        "lora_enable": True,
        "tune_mm_mlp_adapter": True,
        "freeze_mm_mlp_adapter": True,
        "lora_bias": "all",
        "mm_use_im_patch_token": True,
    }
    with pytest.raises(SystemExit) as stop:
        train(argv=train_flags(tmp_path / "out", **flags))
    lines = str(stop.value)
    for words in (
        "--freeze_backbone",
        "--lora_enable with --tune_mm_mlp_adapter",
        "--freeze_mm_mlp_adapter with --tune_mm_mlp_adapter",
        "--lora_bias all",
        "--mm_use_im_patch_token are not supported",
    ):
        assert words in lines
    projector = tmp_path / "mm_projector.bin"
    torch.save({}, projector)
    with pytest.raises(SystemExit, match="has a trained projector already"):
        train(argv=train_flags(tmp_path / "out", model_name_or_path=tiny_llava, pretrain_mm_mlp_adapter=projector))
