"""Bunny's templates: the text written out by hand, ids and labels against upstream's own rule."""

import pytest

from bunny.conversation import conv_templates, default_conversation
from bunny.util.mm_utils import tokenizer_image_token
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import TemplateError, get_template
from llava.data.preprocess import preprocess
from llava.tokenization import check_template

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
STOPS = {"bunny": "<|endoftext|>", "phi3": "<|endoftext|>", "minicpm": "</s>", "llama": "<|end_of_text|>"}
ONE = ["<image>\nWhat is red?", "the line"]
THREE = ["Where is it?\n<image>", "at the top", "Is there a circle?", "No", "Sure?", "Yes, on the left"]
TEXT = ["What is red?", "the line"]


def fill(template, turns):
    conversation = template.copy()
    for i, text in enumerate(turns):
        conversation.append_message(conversation.roles[i % 2], text)
    return conversation


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory, parity, make_tokenizer):
    from llava.model.builder import load_tokenizer

    vicuna = load_tokenizer(parity / "llava-tiny")
    phi3 = load_tokenizer(parity / "llava-tiny")
    phi3.add_special_tokens({"eos_token": "<|endoftext|>"})
    return {
        "bunny": make_tokenizer("<|endoftext|>"),
        "phi3": phi3,
        "minicpm": vicuna,
        "llama": make_tokenizer("<|eot_id|>", "<|begin_of_text|>", ["<|end_of_text|>"]),
    }


@pytest.mark.parametrize("name", STOPS)
def test_text(name):
    stop = STOPS[name]
    assert fill(conv_templates[name], ["<image>\nQ1?", "A1", "Q2?", "A2"]).get_prompt() == (
        f"{SYSTEM} USER: <image>\nQ1? ASSISTANT: A1{stop}USER: Q2? ASSISTANT: A2{stop}"
    )
    assert fill(conv_templates[name], ["Q?", None]).get_prompt() == f"{SYSTEM} USER: Q? ASSISTANT:"
    assert conv_templates[name].version == name


def test_names():
    assert conv_templates["default"] is default_conversation is conv_templates["bunny"]
    assert fill(conv_templates["plain"], ["<image>", "a line"]).get_prompt() == "<image>a line\n"
    assert get_template("llama").sep2 == "<|end_of_text|>"
    with pytest.raises(TemplateError, match=r"unknown conversation template 'bunn'.*bunny, phi3, minicpm, llama"):
        get_template("bunn")


def upstream_labels(turns, tokenizer, stop):
    """Upstream's rule: tokens of each round counted by tokenising it again, with and without bos."""
    image = any("<image>" in turn for turn in turns)

    def count(text):
        return len(tokenizer_image_token(text, tokenizer)) if image else len(tokenizer(text).input_ids)

    has_bos = bool(tokenizer("").input_ids)
    text = fill(conv_templates["bunny"], turns).get_prompt().replace("<|endoftext|>", stop)
    ids = tokenizer_image_token(text, tokenizer) if image else list(tokenizer(text).input_ids)
    labels = list(ids)
    position = 1 if has_bos else 0
    labels[:position] = [IGNORE_INDEX] * position
    for round_text in text.split(stop)[:-1]:
        head = round_text.split(" ASSISTANT: ")[0] + " ASSISTANT: "
        # With a bos, the round's own bos stands for its end token; without, the end token is one more.
        length = count(round_text) + (0 if has_bos else 1)
        masked = count(head) - (2 if has_bos else 1)
        labels[position : position + masked] = [IGNORE_INDEX] * masked
        position += length
    assert position == len(ids), "upstream would drop this sample"
    return ids, labels


@pytest.mark.parametrize("turns", [ONE, THREE, TEXT], ids=["one", "three", "text"])
@pytest.mark.parametrize("name", ["bunny", "llama"])
def test_ids_and_labels_by_upstreams_rule(tokenizers, name, turns):
    tokenizer = tokenizers[name]
    moved = ["<image>\n" + turn.replace("<image>", "").strip() if "<image>" in turn else turn for turn in turns]
    ids, labels = preprocess(turns, tokenizer, conv_templates[name], int(turns is not TEXT))
    expected_ids, expected_labels = upstream_labels(moved, tokenizer, STOPS[name])
    assert ids.tolist() == expected_ids
    assert labels.tolist() == expected_labels


@pytest.mark.parametrize("turns", [ONE, THREE, TEXT], ids=["one", "three", "text"])
@pytest.mark.parametrize("name", STOPS)
def test_answers_and_their_ends_are_supervised(tokenizers, name, turns):
    tokenizer = tokenizers[name]
    ids, labels = preprocess(turns, tokenizer, conv_templates[name], int(turns is not TEXT))
    stop = tokenizer.convert_tokens_to_ids(STOPS[name])
    supervised = [token for token in labels.tolist() if token != IGNORE_INDEX]
    assert supervised.count(stop) == len(turns) // 2
    assert supervised[-1] == stop
    answers = tokenizer.decode(supervised).split(STOPS[name])
    assert [answer.strip() for answer in answers] == [*turns[1::2], ""]
    assert (ids == IMAGE_TOKEN_INDEX).sum() == (turns is not TEXT)
    has_bos = bool(tokenizer("").input_ids)
    assert (ids[0] == tokenizer.bos_token_id) == has_bos
    # One bos at most, also after an image.
    assert not has_bos or (ids == tokenizer.bos_token_id).sum() == 1


def test_captions(tokenizers):
    """Mask: the image token, after a bos where there is one; the caption with its line break is learnt."""
    for name, tokenizer in tokenizers.items():
        ids, labels = preprocess(["<image>\nDescribe.", "a red line"], tokenizer, conv_templates["plain"], 1)
        head = 2 if tokenizer("").input_ids else 1
        assert labels[:head].tolist() == [IGNORE_INDEX] * head, name
        assert ids[head - 1] == IMAGE_TOKEN_INDEX
        assert torch_equal(labels[head:], ids[head:])


def torch_equal(first, second):
    return first.tolist() == second.tolist()


def test_template_of_another_model_is_refused(tokenizers):
    """`--version bunny` on Llama-3 or Phi-3's relatives masked every sample in upstream (Bunny#75, #87)."""
    for name, tokenizer in tokenizers.items():
        check_template(name, tokenizer)
    with pytest.raises(TemplateError, match=r"<\|endoftext\|>.*fit it: .*llama"):
        check_template("bunny", tokenizers["llama"])
    with pytest.raises(TemplateError, match=r"<\|end_of_text\|>.*fit it: .*bunny"):
        check_template("llama", tokenizers["bunny"])
