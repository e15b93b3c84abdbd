"""Exported folders in stock transformers: the same logits and the same text, and back again."""

import json
import shutil
import sys

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from llava.conversation import get_template
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.questions import Question
from llava.model.builder import load_pretrained_model
from llava.model.export import ExportError, check_exportable, export
from llava.tokenization import ids_to_text
from llava.train.arguments import parse_arguments
from llava.train.plan import make_plan
from visual_region.__main__ import main
from visual_region.surgery import remove_layers

PATCHES = 4


def pixels(n):
    return torch.randn(n, 3, 28, 28, generator=torch.Generator().manual_seed(n))


BATCHES = {
    "image": ([[1, 5, -1, 7, 8], [1, -1, 9, 10, 11]], pixels(2)),
    "several images": ([[1, -1, 6, -1, 8], [1, -1, -1, 10, 11]], pixels(4)),
    "text": ([[1, 5, 6, 7, 8]], None),
}


def assert_same_logits(ours, stock):
    image = stock.config.image_token_index
    for name, (rows, images) in BATCHES.items():
        ids = torch.tensor([[-200 if token == -1 else token for token in row] for row in rows])
        expanded = [[t for token in row for t in ([image] * PATCHES if token == -1 else [token])] for row in rows]
        with torch.no_grad():
            expected = ours(input_ids=ids, images=images).logits
            found = stock(input_ids=torch.tensor(expanded), pixel_values=images).logits
        torch.testing.assert_close(found[..., : expected.shape[-1]], expected, atol=1e-4, rtol=0, msg=name)


def load(path, base=None):
    return load_pretrained_model(str(path), base, device="cpu")


def run_command(*words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["visual_region", "export", *map(str, words)])
        main()


def write(ours, folder):
    tokenizer, model, processor, _ = ours
    return export(model, tokenizer, processor, folder, get_template("vicuna_v1"))


def assert_same_text(ours, folder, tiny):
    """Answers to questions with an image that is not square, one without, one after a first turn."""
    tokenizer, model, processor, _ = ours
    stock = AutoModelForImageTextToText.from_pretrained(folder).eval()
    assert type(stock) is LlavaForConditionalGeneration
    stock_processor = AutoProcessor.from_pretrained(folder)
    template = get_template("vicuna_v1")
    answerer = Answerer(model, tokenizer, processor, template, tiny.images, Generation(max_new_tokens=16))
    for question in (
        Question(0, 0, "Where is the red line?", "3.png"),
        Question(1, 1, "Is there a circle?\nAnswer.", "5.png"),
        Question(2, 2, "Where is the red line?", None),
    ):
        parts = [{"type": "text", "text": question.text}]
        if question.image:
            parts.insert(0, {"type": "image"})
        prompt = stock_processor.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
        )
        images = [Image.open(tiny.images / question.image)] if question.image else None
        inputs = stock_processor(text=prompt, images=images, return_tensors="pt")
        if images:
            torch.testing.assert_close(inputs["pixel_values"], answerer.inputs([question])["images"], atol=0, rtol=0)
        generated = stock.generate(**inputs, max_new_tokens=16, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        # The stock processor writes bytes that are no characters in another way (docs/upstream.md).
        text = ids_to_text(stock_processor.tokenizer, generated[0]).strip()
        assert [text] == answerer.answer([question])
        assert text


def test_full_and_back_again(tiny, tiny_llava, tmp_path):
    ours = load(tiny_llava)
    write(ours, tmp_path / "stock")
    assert_same_logits(ours[1], LlavaForConditionalGeneration.from_pretrained(tmp_path / "stock").eval())
    assert_same_text(ours, tmp_path / "stock", tiny)
    back = load(tmp_path / "stock")
    assert back[1].config.visual_region == ours[1].config.visual_region
    assert back[1].config.image_aspect_ratio == "pad"
    assert_same_logits(back[1], LlavaForConditionalGeneration.from_pretrained(tmp_path / "stock").eval())


def test_pruned(tiny, tiny_llava, tmp_path):
    ours = load(tiny_llava)
    remove_layers(ours[1], (1, 4), "model.layers")
    write(ours, tmp_path / "stock")
    stock = LlavaForConditionalGeneration.from_pretrained(tmp_path / "stock").eval()
    assert stock.config.text_config.num_hidden_layers == 4
    assert_same_logits(ours[1], stock)
    assert_same_text(ours, tmp_path / "stock", tiny)
    assert load(tmp_path / "stock")[1].config.visual_region["removed_layers"] == [1, 4]


@pytest.mark.parametrize("reference", [("llava-tiny", None), ("c_lora", "tiny-vicuna"), ("c_pretrain", "tiny-vicuna")])
def test_command_on_upstreams_checkpoints(parity, tmp_path, reference):
    path, base = reference
    words = ["--model-path", parity / path, "--conv-mode", "v1", "--vision-tower", parity / "tiny-clip-56"]
    run_command(*words, *(["--model-base", parity / base] if base else []), "--output", tmp_path / "stock")
    stock = LlavaForConditionalGeneration.from_pretrained(tmp_path / "stock", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "stock")
    file = {
        "llava-tiny": "b_logits_fp32.json",
        "c_lora": "b_logits_after_lora.json",
        "c_pretrain": "b_logits_after_pretrain.json",
    }[path]
    for sample in json.loads((parity / file).read_text())["samples"]:
        images = [Image.open(parity / "images" / sample["image"])] if sample["image"] else None
        inputs = processor(text=sample["prompt"], images=images, return_tensors="pt")
        with torch.no_grad():
            logits = stock(**inputs).logits[0, -1]
        torch.testing.assert_close(logits[:600], torch.tensor(sample["logits_last"]), atol=1e-4, rtol=0)


def test_what_the_output_holds_is_not_replaced(tiny_llava, tmp_path, monkeypatch):
    """Neither other files, nor the model itself, nor a checkpoint unless asked; and no weight is loaded for it."""
    source = shutil.copytree(tiny_llava, tmp_path / "source")
    thesis = tmp_path / "other" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("precious")
    before = sorted(file.name for file in source.iterdir())
    flags = ("--model-path", source, "--conv-mode", "v1", "--output")
    with monkeypatch.context() as patch:
        loaded = "visual_region.commands.export.load_checkpoint"
        patch.setattr(loaded, lambda *a, **k: pytest.fail("weights were loaded"))
        for output, words in (
            (source, "overlap"),
            (source / "stock", "overlap"),
            (tmp_path, "overlap"),
            (thesis.parent, "is not empty and not a checkpoint"),
            (thesis, "is a file; give a folder"),
            (thesis / "stock", "is a file, and nothing can be written below it"),
        ):
            with pytest.raises(SystemExit, match=words):
                run_command(*flags, output)
    assert thesis.read_text() == "precious"
    assert sorted(file.name for file in source.iterdir()) == before
    run_command(*flags, tmp_path / "stock")
    with pytest.raises(SystemExit, match="--overwrite replaces it"):
        run_command(*flags, tmp_path / "stock")
    run_command(*flags, tmp_path / "stock", "--overwrite")


def test_processor_without_padding(tiny, tiny_llava, tmp_path):
    ours = load(tiny_llava)
    ours[1].config.image_aspect_ratio = "square"
    write(ours, tmp_path / "stock")
    assert_same_text(ours, tmp_path / "stock", tiny)


@pytest.mark.parametrize("legacy", [False, True])
def test_prompts_become_the_same_ids(parity, legacy, tmp_path):
    from llava.mm_utils import tokenizer_image_token
    from llava.model.builder import load_tokenizer
    from llava.model.export import _keep_tokenizer_as_is, _with_image_token

    tokenizer = load_tokenizer(parity / ("tok_legacy" if legacy else "llava-tiny"))
    with_image, _ = _with_image_token(tokenizer)
    with_image.save_pretrained(tmp_path)
    _keep_tokenizer_as_is(tmp_path)
    from transformers import AutoTokenizer

    stock = AutoTokenizer.from_pretrained(tmp_path)
    image = stock.convert_tokens_to_ids("<image>")
    for prompt in (
        "A chat. USER: <image>\nWhat is it? ASSISTANT:",
        "USER: <image>\n<image>\nhi ASSISTANT: yes</s>USER: and?\n\nor ASSISTANT:",
        "\nA",
    ):
        ids = tokenizer_image_token(prompt, tokenizer)
        assert stock(prompt).input_ids == [image if token == -200 else token for token in ids]


def test_interrupted_export_leaves_nothing(tiny_llava, tmp_path, monkeypatch):
    ours = load(tiny_llava)
    monkeypatch.setattr("llava.model.export._keep_tokenizer_as_is", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(ours, tmp_path / "stock")
    assert not list(tmp_path.iterdir())


def test_what_transformers_lacks_is_told_before_weights(tiny_llava, tiny, tmp_path):
    from llava.model.multimodal_encoder.efficientnet_encoder import EfficientNetLiteConfig, EfficientNetLiteTower

    config = load(tiny_llava)[1].config
    config.mm_projector_type = "linear"
    tower = EfficientNetLiteTower("lite", EfficientNetLiteConfig(), config)
    with pytest.raises(ExportError, match=r"no vision model of type 'efficientnet_lite'.*; the projector is 'linear'"):
        check_exportable(config, tower)
    with pytest.raises(ExportError, match="no vision tower"):
        check_exportable(config, None)
    folder = shutil.copytree(tiny_llava, tmp_path / "copy")
    values = json.loads((folder / "config.json").read_text()) | {"mm_projector_type": "mlp3x_gelu"}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(SystemExit, match="error: the model cannot be exported: the projector is"):
        run_command("--model-path", folder, "--output", tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_training_a_stock_folder_keeps_its_own_tower(tiny, tiny_llava, train_flags, tmp_path, capsys):
    """It may have been trained, as LLaVA-1.6's; the scripts always name a published one."""
    stock = tmp_path / "stock"
    write(load(tiny_llava), stock)
    changes = {"model_name_or_path": stock, "mm_vision_select_layer": -2}
    plan = make_plan(*parse_arguments(train_flags(tmp_path / "out", **changes)))
    assert plan.vision.vision_tower == str(stock)
    assert f"--vision_tower {tiny.tower} is not used: {stock} holds its own tower" in capsys.readouterr().err
