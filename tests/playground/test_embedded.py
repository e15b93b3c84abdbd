"""The embedded default: real data, a real tower, a real language model."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from llava.data.check import cheap_problems
from llava.data.records import open_records
from llava.mm_utils import process_image
from llava.model.multimodal_encoder.builder import build_vision_tower


def test_blind_baseline_is_the_known_one(embedded):
    blind = json.loads((embedded / "data/eval/easy_vqa/blind.json").read_text())["test"]
    assert blind["questions"] == 9673
    for kind, percent in {"all": 67.0, "shape": 34.8, "colour": 12.0, "yes_no": 82.5}.items():
        assert round(100 * blind[kind], 1) == percent


def test_training_data_is_llava_json(embedded):
    folder = embedded / "data/easy_vqa"
    for name in ("pretrain.json", "finetune.json"):
        records = open_records(folder / name)
        assert len(records) > 3000
        assert not cheap_problems(records, folder / "images").by_kind
    sample = open_records(folder / "finetune.json")[0]
    assert sample.turns[0].startswith("<image>\n")
    assert 2 <= len(sample.turns) // 2 <= 8
    captions = {record.turns[1] for record in open_records(folder / "pretrain.json")}
    assert len(captions) == 24


def test_wrong_images_are_wrong_in_both_respects(embedded):
    folder = embedded / "data/eval/easy_vqa"
    right, wrong = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("questions_1200.jsonl", "questions_wrong_image.jsonl")
    )
    assert len(right) == len(wrong) == 1200
    assert all(
        a["question_id"] == b["question_id"] and a["image"] != b["image"] for a, b in zip(right, wrong, strict=True)
    )


class Args:
    def __init__(self, tower: Path):
        self.vision_tower = str(tower)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tower(embedded, dtype):
    tower = build_vision_tower(Args(embedded / "models/efficientnet-lite0-128"), delay_load=True)
    assert (tower.num_patches, tower.hidden_size) == (16, 472)
    tower.load_model(dtype=dtype)
    images = [Image.open(embedded / f"data/easy_vqa/images/train/{i}.png") for i in range(8)]
    pixels = torch.stack([process_image(image, tower.image_processor, "pad") for image in images])
    features = tower(pixels)
    assert features.shape == (8, 16, 472)
    tolerance = 1e-4 if dtype is torch.float32 else 0.1
    torch.testing.assert_close(tower(pixels[:1])[0], features[0], atol=tolerance, rtol=tolerance)
    assert 0.5 < features.std() < 2


def test_language_model_talks(embedded):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = embedded / "models/SmolLM2-135M-Instruct"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n", return_tensors="pt"
    )
    answer = tokenizer.decode(model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids.input_ids.shape[1] :])
    assert "Paris" in answer
    assert answer.endswith("<|im_end|>")
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id)
