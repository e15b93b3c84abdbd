"""Every backbone and both towers as transformers' own LLaVA: the same logits and the same text."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from llava.conversation import get_template
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.questions import Question
from llava.families import known_families
from llava.model.builder import load_pretrained_model, load_tokenizer
from llava.model.export import ExportError, check_exportable, export
from llava.tokenization import end_turns_with, ids_to_text


def whole(family, base, tower, folder, **changes):
    """A LLaVA or Bunny of random weights, written as training writes one."""
    torch.manual_seed(1)
    config = family.load_config_class().from_pretrained(base)
    model = family.load_model_class().from_pretrained(base, config=config)
    settings = {"mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "mm_projector_type": "mlp2x_gelu"}
    model.get_model().initialize_vision_modules(
        SimpleNamespace(vision_tower=str(tower), pretrain_mm_mlp_adapter=None, **settings, **changes)
    )
    model.config.image_aspect_ratio = "pad"
    tokenizer = load_tokenizer(base)
    end_turns_with(get_template(family.template), tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_pretrained_model(str(folder), device="cpu")


@pytest.mark.parametrize("name", known_families())
def test_same_logits_and_text(name, backbones, siglip, tiny, tmp_path):
    family = known_families()[name]
    tower = siglip if family.package == "bunny" else tiny.tower
    tokenizer, model, processor, _ = whole(family, backbones[name], tower, tmp_path / "ours")
    template = get_template(family.template)
    export(model, tokenizer, processor, tmp_path / "stock", template)
    stock = AutoModelForImageTextToText.from_pretrained(tmp_path / "stock").eval()
    stock_processor = AutoProcessor.from_pretrained(tmp_path / "stock")
    again = load_pretrained_model(str(tmp_path / "stock"), device="cpu")[1]
    answerer = Answerer(model, tokenizer, processor, template, tiny.images, Generation(max_new_tokens=8))
    question = Question(0, 0, "Where is the red line?", "3.png")
    parts = [{"type": "image"}, {"type": "text", "text": question.text}]
    prompt = stock_processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    inputs = stock_processor(text=prompt, images=Image.open(tiny.images / question.image), return_tensors="pt")
    ours = answerer.inputs([question])
    torch.testing.assert_close(inputs["pixel_values"], ours["images"], atol=0, rtol=0)
    with torch.no_grad():
        expected = model(input_ids=ours["inputs"], images=ours["images"]).logits
        found = stock(**inputs).logits[..., : expected.shape[-1]]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        back = again(input_ids=ours["inputs"], images=ours["images"]).logits[..., : expected.shape[-1]]
        torch.testing.assert_close(back, expected, atol=1e-4, rtol=0)
    generated = stock.generate(**inputs, max_new_tokens=8, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    # The stock processor writes bytes that are no characters in another way (docs/upstream.md).
    assert [ids_to_text(stock_processor.tokenizer, generated[0]).strip()] == answerer.answer([question])


def test_several_scales_have_no_place(backbones, siglip, tmp_path):
    family = known_families()["bunny-llama"]
    _, model, _, _ = whole(family, backbones["bunny-llama"], siglip, tmp_path / "s2", use_s2=True, s2_scales="28,56")
    with pytest.raises(ExportError, match=r"features of 48 values, its network 24: several scales \(S2\)"):
        check_exportable(model.config, model.get_vision_tower())
