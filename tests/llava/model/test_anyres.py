"""LLaVA-1.6 against transformers' own LlavaNext: the same logits, from upstream's layout and from LlavaNext's."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    MistralConfig,
)

from llava.checkpoint.opened import CheckpointError
from llava.conversation import get_template
from llava.eval.answering.answerer import Generation
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.model.export import ExportError, check_exportable, export
from llava.serve.chat import ChatError, ChatSession
from tests.fixtures.anyres import PINPOINTS, SHAPES, SIDE, TOKENIZER
from tests.llava.checkpoint.test_hf_llava import IMAGE, TEXT, in_layout

ROWS = (
    *(([f"USER: <image>\nWhere is the line {i}? ASSISTANT:", (i,)]) for i in range(len(SHAPES))),
    ["USER: <image>\n<image>\nWhich of them? ASSISTANT:", (3, 5)],
    ["USER: <image>\nFirst. ASSISTANT: yes</s>USER: <image>\nand this? ASSISTANT:", (4, 0)],
    ["USER: Where is the line? ASSISTANT:", ()],
)
"""Prompts and the numbers of their images: every shape, several images in a prompt, none."""


def load(path, base=None):
    return load_pretrained_model(str(path), base and str(base), device="cpu")


def our_logits(loaded, prompts, images):
    """Logits of one batch, row by row without padding."""
    tokenizer, model, processor, _ = loaded
    rows = [tokenizer_image_token(prompt, tokenizer, return_tensors="pt") for prompt in prompts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    pixels = process_images(images, processor, model.config) if images else None
    sizes = [image.size for image in images]
    with torch.no_grad():
        _, _, whole, _, embeds, _ = model.prepare_inputs_labels_for_multimodal(
            ids, None, mask, None, None, pixels, sizes
        )
        given = {"input_ids": ids, "attention_mask": mask, "images": pixels, "image_sizes": sizes}
        logits = model(**given).logits
    lengths = mask if embeds is None else whole
    return [row[: int(length)] for row, length in zip(logits, lengths.sum(1), strict=True)]


@pytest.fixture(scope="module")
def exported(anyres, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "stock"
    tokenizer, model, processor, _ = load(anyres.llava)
    export(model, tokenizer, processor, folder, get_template("vicuna_v1"))
    return folder


def opened(anyres, numbers):
    return [Image.open(anyres.images / f"{i}.png").convert("RGB") for i in numbers]


def test_upstreams_layout_exported_equals_llava_next(anyres, exported):
    """With the stock processor's own ids and pixels; all rows in one batch here, one by one and in a batch there."""
    ours = load(anyres.llava)
    stock = LlavaNextForConditionalGeneration.from_pretrained(exported).eval()
    processor = AutoProcessor.from_pretrained(exported)
    found = our_logits(ours, [prompt for prompt, _ in ROWS], opened(anyres, [i for _, own in ROWS for i in own]))
    for (prompt, numbers), logits in zip(ROWS, found, strict=True):
        inputs = processor(text=prompt, images=opened(anyres, numbers) or None, return_tensors="pt")
        with torch.no_grad():
            expected = stock(**inputs).logits[0]
        torch.testing.assert_close(logits, expected[:, :600], atol=1e-4, rtol=0, msg=prompt)
    rows = ROWS[2:6]
    inputs = processor(
        text=[prompt for prompt, _ in rows],
        images=[opened(anyres, own) for _, own in rows],
        return_tensors="pt",
        padding=True,
    )
    with torch.no_grad():
        expected = stock(**inputs).logits
    for logits, row, mask in zip(found[2:6], expected, inputs["attention_mask"], strict=True):
        torch.testing.assert_close(logits, row[mask.bool()][:, :600], atol=1e-4, rtol=0)


def test_exported_folder_comes_back(anyres, exported):
    ours, back = load(anyres.llava), load(exported)
    assert back[1].config.image_grid_pinpoints == PINPOINTS
    assert json.loads((exported / "config.json").read_text())["image_grid_pinpoints"] == [p[::-1] for p in PINPOINTS]
    assert "LlavaNextForConditionalGeneration.from_pretrained" in (exported / "README.md").read_text()
    prompts, images = [prompt for prompt, _ in ROWS[3:5]], opened(anyres, [3, 4])
    for found, expected in zip(our_logits(back, prompts, images), our_logits(ours, prompts, images), strict=True):
        torch.testing.assert_close(found[:, :600], expected, atol=1e-4, rtol=0)


def llava_next(folder, anyres, backbone=LlamaConfig, pinpoints=PINPOINTS):
    """A random LlavaNext and its folder."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**sizes, image_size=SIDE, patch_size=4)
    settings = {"image_token_index": IMAGE, "image_grid_pinpoints": pinpoints, "image_seq_length": 49}
    config = LlavaNextConfig(vision_config=vision, text_config=backbone(**TEXT), **settings)
    model = LlavaNextForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size=square, image_grid_pinpoints=pinpoints
    )
    processor.save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copyfile(anyres.llm / name, folder / name)
    return model, processor


@pytest.mark.parametrize(
    ("layout", "backbone", "pinpoints"),
    [
        ("new", LlamaConfig, PINPOINTS),
        ("old", LlamaConfig, [[28, 84], [56, 28]]),
        ("new", MistralConfig, [[84, 56]]),
    ],
)
def test_llava_nexts_folder_equals_llava_next(anyres, tmp_path, layout, backbone, pinpoints):
    theirs, processor = llava_next(tmp_path / "hf", anyres, backbone, pinpoints)
    in_layout(tmp_path / "hf", layout)
    ours = load(tmp_path / "hf")
    found = our_logits(ours, [prompt for prompt, _ in ROWS], opened(anyres, [i for _, own in ROWS for i in own]))
    for (prompt, numbers), logits in zip(ROWS, found, strict=True):
        inputs, lengths = {}, iter(())
        if numbers:
            inputs = dict(processor(opened(anyres, numbers), return_tensors="pt"))
            with torch.no_grad():
                lengths = iter([len(block) for block in theirs.model.get_image_features(**inputs).pooler_output])
        ids = tokenizer_image_token(prompt, ours[0])
        ids = [i for token in ids for i in ([IMAGE] * next(lengths) if token == -200 else [token])]
        with torch.no_grad():
            expected = theirs(input_ids=torch.tensor([ids]), **inputs).logits[0]
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0, msg=prompt)


def test_flat_and_spatial_read_other_tokens(anyres):
    """The two other merge types of upstream answer too; transformers has neither."""
    loaded = load(anyres.llava)
    config, lengths = loaded[1].config, {}
    for merge in ("spatial_unpad", "spatial", "flat"):
        config.mm_patch_merge_type = merge
        (logits,) = our_logits(loaded, [ROWS[3][0]], opened(anyres, [3]))
        lengths[merge] = len(logits)
        if merge != "spatial_unpad":
            with pytest.raises(ExportError, match=f"mm_patch_merge_type {merge}: transformers' LlavaNext joins"):
                check_exportable(config, loaded[1].get_vision_tower())
    assert lengths["spatial_unpad"] < lengths["spatial"] == lengths["flat"]


def test_a_missing_newline_is_an_error(anyres, tmp_path):
    folder = shutil.copytree(anyres.llava, tmp_path / "llava")
    weights = load_file(folder / "model.safetensors")
    assert weights.pop("model.image_newline").shape == (32,)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights that its config.json requires .* first model.image_newline"):
        load(folder)


def test_without_sizes(anyres):
    _, model, processor, _ = load(anyres.llava)
    pixels = process_images(opened(anyres, [3]), processor, model.config)
    with pytest.raises(ValueError, match=r"sizes are missing \(image_sizes\)"):
        model(input_ids=torch.tensor([[1, -200, 5]]), images=pixels)


def test_a_chat_about_two_images(anyres):
    tokenizer, model, processor, _ = load(anyres.llava)
    session = ChatSession(model, tokenizer, processor, get_template("vicuna_v1"), opened(anyres, [1, 3]))
    session.generation = Generation(max_new_tokens=4)
    prompt = tokenizer_image_token(session.prompt("Which?"), tokenizer)
    length = len(prompt) - 2 + sum(model.tiling.tokens(SHAPES[i]) for i in (1, 3))
    model.config.max_position_embeddings = length + 3
    with pytest.raises(ChatError, match=f"the conversation is {length} tokens long; with 4 new ones it exceeds"):
        session.answer("Which?")
    model.config.max_position_embeddings = length + 4
    assert session.answer("Which?")


def test_towers_that_cut_images_themselves(anyres, tmp_path):
    """S2 with anyres, and a class token in the grid, are errors before weights are read."""
    values = json.loads((anyres.llava / "config.json").read_text())
    for changes, words in (
        ({"s2": True, "s2_scales": "28,56", "mm_hidden_size": 48}, "anyres does not work with the tower .*: S2 cuts"),
        (
            {"mm_vision_select_feature": "cls_patch"},
            "needs a square grid of tokens per view, and a view has 50",
        ),
    ):
        folder = shutil.copytree(anyres.llava, tmp_path / str(len(changes)))
        (folder / "config.json").write_text(json.dumps(values | changes))
        with pytest.raises(ValueError, match=words):
            load(folder)
