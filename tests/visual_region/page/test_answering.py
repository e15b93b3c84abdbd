"""The page's answers are the chat's; wrong input and a failing model are messages."""

from types import SimpleNamespace

import pytest
from PIL import Image

from llava.eval.answering.answerer import Generation
from llava.serve.chat import ChatSession
from visual_region.page.answering import PageError, ask_all, load_all, open_all

QUESTION = "Where is the red line?"


def arguments(path, compare=None, **changes):
    names = ("model_base", "compare_base", "vision_tower", "conv_mode", "dtype")
    flags = {"model_path": str(path), "compare": compare and str(compare), "device": "cpu"} | dict.fromkeys(names)
    return SimpleNamespace(**flags | changes)


@pytest.fixture(scope="module")
def models(tiny_llava, tiny_lora):
    args = arguments(tiny_llava, tiny_lora, conv_mode="v1")
    return load_all(open_all(args), args)


def last(models, *fields):
    return list(ask_all(models, *fields))[-1]


def test_both_answers_are_the_chats(models, tiny):
    replies = last(models, str(tiny.images / "3.png"), f" {QUESTION} ", 8, 0)
    for loaded, reply in zip(models, replies, strict=True):
        image = Image.open(tiny.images / "3.png")
        session = ChatSession(
            loaded.model, loaded.tokenizer, loaded.processor, loaded.template, [image], Generation(max_new_tokens=8)
        )
        assert reply.text == session.answer(QUESTION)
        assert "tokens; first token after" in reply.note
        assert reply.maps.shares.shape == (6, 2, 2)
        assert reply.maps.original == tuple(range(6))
    assert replies[0].text != replies[1].text


def test_answers_grow_one_model_after_the_other(models):
    steps = list(ask_all(models, None, QUESTION, 8, 0))
    assert steps[0][1].note == "waiting"
    texts = [step[0].text for step in steps]
    assert texts == sorted(texts, key=len)
    # Without an image there is nothing to look at.
    assert [reply.maps for reply in steps[-1]] == [None, None]


def test_the_record_is_told(models):
    assert [loaded.name for loaded in models] == ["tiny-llava", "lora"]
    assert models[0].about.startswith("6 layers, full.")
    assert "Tuned: 2 layers of 6 (`--tune_layers 0,3`): 0, 3." in models[1].about


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((None, "  ", 8, 0), "type a question"),
        ((None, None, 8, 0), "type a question"),
        ((None, QUESTION, None, 0), "from 1 to 1024"),
        ((None, QUESTION, 0, 0), "from 1 to 1024"),
        ((None, QUESTION, 5000, 0), "from 1 to 1024"),
        (("missing.png", QUESTION, 8, 0), "does not exist"),
        ((__file__, QUESTION, 8, 0), "is not an image"),
    ],
)
def test_wrong_input_is_a_message(models, fields, words):
    with pytest.raises(PageError, match=words):
        last(models, *fields)


def test_what_fails_in_one_model_is_its_note(models, tiny):
    first, second = last(models, str(tiny.images / "3.png"), "<image> <image> both?", 8, 0)
    assert "places for 2 images" in first.note
    assert first.note == second.note
    long = last(models, None, "please " * 600, 8, 0)
    assert "**Error:** the conversation is" in long[0].note
    # The page goes on.
    assert last(models, None, QUESTION, 8, 0)[0].text


def test_all_wrong_checkpoints_are_named(tmp_path, tiny_llava):
    with pytest.raises(PageError, match=r"(?s)--model-path.*nowhere.*--compare.*neither"):
        open_all(arguments(tmp_path / "nowhere", tmp_path / "neither"))
    with pytest.raises(PageError, match="unknown conversation template 'v9'"):
        open_all(arguments(tiny_llava, conv_mode="v9"))
