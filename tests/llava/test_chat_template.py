"""The Jinja text renders what the template itself renders."""

import pytest
from jinja2 import Environment

from llava.chat_template import chat_template
from llava.conversation import SeparatorStyle, conv_templates

TURNS = [("<image>\nQ1?", "A 1"), ("Q2 'x' \"y\"\\n?", "A2")]
ANSWERING = [name for name, conv in conv_templates.items() if conv.sep_style is not SeparatorStyle.PLAIN]


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("is_open", [True, False])
def test_equals_the_template(name, turns, is_open):
    conv = conv_templates[name].copy()
    messages = []
    for i, (question, answer) in enumerate(TURNS[:turns]):
        last_open = is_open and i == turns - 1
        conv.append_message(conv.roles[0], question)
        conv.append_message(conv.roles[1], None if last_open else answer)
        parts = [{"type": "text", "text": question.removeprefix("<image>\n")}]
        messages.append({"role": "user", "content": parts + [{"type": "image"}] * ("<image>" in question)})
        if not last_open:
            messages.append({"role": "assistant", "content": answer})
    rendered = Environment().from_string(chat_template(conv)).render(messages=messages, add_generation_prompt=is_open)
    assert rendered == conv.get_prompt()


def test_system_message_takes_the_place_of_the_system_prompt():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    render = {
        name: Environment().from_string(chat_template(conv_templates[name])).render(messages=messages)
        for name in ("vicuna_v1", "chatml_direct")
    }
    assert render["vicuna_v1"] == "Be brief. USER: Hi "
    assert render["chatml_direct"].startswith("<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nHi")


def test_captions_have_none():
    assert chat_template(conv_templates["plain"]) is None
