"""Six LoRA steps of upstream's trainer, from its initial weights and batches: the same losses."""

import json

import pytest
import torch
from PIL import Image

from llava.mm_utils import process_image
from llava.model.builder import load_pretrained_model
from visual_region.layers import LayerSelection
from visual_region.tuning import apply_lora


def image_of_each_row(parity, batch, processor):
    """Recorded ids name no image: find each row's sample by its ids."""
    from llava.conversation import conv_templates
    from llava.data.preprocess import preprocess
    from llava.data.records import open_records
    from llava.model.builder import load_tokenizer

    tokenizer = load_tokenizer(parity / "llava-tiny")
    records = list(open_records(parity / "train.json"))
    by_ids = {
        tuple(preprocess(r.turns, tokenizer, conv_templates["v1"], len(r.images))[0].tolist()): r for r in records
    }
    pixels = []
    for ids, mask_sum, pixel_sum in zip(
        batch["input_ids"], batch["attention_mask_sum"], batch["pixel_sum"], strict=True
    ):
        record = by_ids[tuple(ids[:mask_sum])]
        if not record.images:
            pixels.append(torch.zeros(3, 56, 56))
            continue
        candidates = [r.images[0] for r in records if r.turns == record.turns and r.images]
        options = [process_image(Image.open(parity / "images" / name), processor, "pad") for name in candidates]
        pixels.append(min(options, key=lambda p: abs(p.double().sum().item() - pixel_sum)))
        assert pixels[-1].double().sum().item() == pytest.approx(pixel_sum, abs=1e-2)
    return torch.stack(pixels)


@pytest.mark.parametrize("label_only", [False, True])
def test_six_steps(parity, label_only):
    _, model, processor, _ = load_pretrained_model(
        str(parity / "llava-tiny"), device="cpu", vision_tower=str(parity / "tiny-clip-56")
    )
    model.label_only_logits = label_only
    model.requires_grad_(False)
    wrapped = apply_lora(
        model, LayerSelection.parse("all", 4), "model.layers", r=8, lora_alpha=16, lora_dropout=0.0
    ).train()
    projector = model.get_model().mm_projector.requires_grad_(True)
    state = torch.load(parity / "c_lora_init.pt", weights_only=True)
    trainable = dict(wrapped.named_parameters())
    assert set(state) <= set(trainable)
    wrapped.load_state_dict(state, strict=False)
    adapters = [p for name, p in trainable.items() if "lora_" in name]
    optimizer = torch.optim.AdamW(
        [{"params": adapters, "lr": 2e-4}, {"params": projector.parameters(), "lr": 2e-5}], weight_decay=0.0
    )
    from transformers import get_cosine_schedule_with_warmup

    schedule = get_cosine_schedule_with_warmup(optimizer, 1, 6)
    for step in json.loads((parity / "c_lora.json").read_text())["steps"]:
        ids = torch.tensor(step["input_ids"])
        mask = torch.arange(ids.shape[1]) < torch.tensor(step["attention_mask_sum"]).unsqueeze(1)
        output = wrapped(
            input_ids=ids,
            labels=torch.tensor(step["labels"]),
            attention_mask=mask,
            images=image_of_each_row(parity, step, processor),
        )
        assert output.loss.item() == pytest.approx(step["loss"], abs=1e-4)
        output.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([p for p in wrapped.parameters() if p.requires_grad], 1.0)
        assert norm.item() == pytest.approx(step["grad_norm"], rel=1e-3)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
