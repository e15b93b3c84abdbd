"""Our loader and model against numbers that upstream's gave, fp32 on a CPU."""

import json

import pytest
import torch
from PIL import Image

from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.tokenization import ids_to_text

CHECKPOINTS = {
    "b_logits_fp32.json": ("llava-tiny", None),
    "b_logits_after_lora.json": ("c_lora", "tiny-vicuna"),
    "b_logits_after_pretrain.json": ("c_pretrain", "tiny-vicuna"),
}


@pytest.mark.parametrize("reference", CHECKPOINTS)
def test_logits(parity, reference):
    path, base = CHECKPOINTS[reference]
    tokenizer, model, processor, _ = load_pretrained_model(
        str(parity / path),
        str(parity / base) if base else None,
        device="cpu",
        vision_tower=str(parity / "tiny-clip-56"),
    )
    for sample in json.loads((parity / reference).read_text())["samples"]:
        images = None
        if sample["image"]:
            images = process_images([Image.open(parity / "images" / sample["image"])], processor, model.config)
            if "pixel_sum" in sample:
                assert images.double().sum().item() == pytest.approx(sample["pixel_sum"], abs=1e-2)
            with torch.no_grad():
                features = model.encode_images(images)[0]
            torch.testing.assert_close(features, torch.tensor(sample["projected_features"]), atol=1e-4, rtol=0)
        ids = tokenizer_image_token(sample["prompt"], tokenizer, return_tensors="pt").unsqueeze(0)
        assert ids[0].tolist() == sample["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=ids, images=images).logits[0]
        assert list(logits.shape) == sample["logits_shape"]
        torch.testing.assert_close(logits[-1], torch.tensor(sample["logits_last"]), atol=1e-4, rtol=0)
        assert logits.argmax(-1).tolist() == sample["argmax_per_pos"]
        sums = torch.tensor(sample["logits_sum_per_pos"])
        torch.testing.assert_close(logits.sum(-1), sums, atol=1e-3, rtol=0)
        # 4.37 puts a bos in front of what it generates from embeddings.
        generated = model.generate(ids, images=images, do_sample=False, max_new_tokens=len(sample["greedy"]) - 1)
        assert generated[0].tolist() == sample["greedy"][1:]


def test_answers(parity):
    """The greedy answers of upstream's model_vqa_loader, character for character: this model writes random bytes."""
    from llava.conversation import get_template
    from llava.eval.answering.answerer import Answerer
    from llava.eval.answering.questions import read_questions

    tokenizer, model, processor, _ = load_pretrained_model(
        str(parity / "llava-tiny"), device="cpu", vision_tower=str(parity / "tiny-clip-56")
    )
    answerer = Answerer(model, tokenizer, processor, get_template("vicuna_v1"), parity / "images")
    questions = read_questions(parity / "questions.jsonl")
    for question, line in zip(questions, (parity / "d_answers.jsonl").read_text().splitlines(), strict=True):
        ids = model.generate(**answerer.inputs([question]), do_sample=False, max_new_tokens=32, eos_token_id=2)
        assert ids_to_text(tokenizer, ids[0]).strip() == json.loads(line)["text"]
