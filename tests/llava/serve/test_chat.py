"""The chat says what batched generation says, remembers its turns, and can be interrupted."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from llava.conversation import get_template
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.questions import Question
from llava.eval.run_llava import eval_model
from llava.model.builder import load_pretrained_model
from llava.serve.chat import ChatError, ChatSession, Pace, _until
from llava.serve.terminal import answer


@pytest.fixture(scope="module")
def parts(tiny_llava):
    return load_pretrained_model(str(tiny_llava), device="cpu")


@pytest.fixture
def session(parts, tiny):
    tokenizer, model, processor, _ = parts
    images = [Image.open(tiny.images / "3.png")]
    return ChatSession(model, tokenizer, processor, get_template("v1"), images, Generation(max_new_tokens=12))


def test_streamed_answer_is_the_evaluations(parts, session, tiny):
    tokenizer, model, processor, _ = parts
    answerer = Answerer(model, tokenizer, processor, get_template("v1"), tiny.images, Generation(max_new_tokens=12))
    pieces = list(session.ask("Where is the red line?"))
    assert len(pieces) > 1
    assert ["".join(pieces).strip()] == answerer.answer([Question(0, 0, "Where is the red line?", "3.png")])


@pytest.mark.parametrize("pieces", [{"▁###": 835, "##": 2277, "#": 29937}, {"###": 835}])
def test_a_stop_that_is_a_token_only_at_the_start_of_a_text(session, pieces):
    """Llama's tokenizer: "###" alone is "▁###", and after a line break two other tokens."""

    class Tokens:
        eos_token_id = 2

        def __call__(self, text, **_):
            return SimpleNamespace(input_ids=[835])

        def convert_tokens_to_ids(self, piece):
            return pieces.get(piece, 0)

    session.tokenizer, session.conversation = Tokens(), get_template("llava_v0").copy()
    alone = "###" in pieces
    assert session._stop_text() == (None if alone else "###")
    assert session._stop_ids() == ([2, 835] if alone else [2])


def test_pace_counts_the_tokens(session):
    said = "".join(session.ask("Where?"))
    assert 1 <= session.pace.tokens <= 12
    assert session.pace.tokens >= len(said.split())
    assert session.pace.first > 0
    assert Pace.of(1.0, [3.0, 3.5, 4.0]) == Pace(3, 2.0, 2.0)
    assert Pace.of(1.0, [3.0]) == Pace(1, 2.0, None)
    assert Pace.of(1.0, []) is None


def test_turns_are_remembered(session):
    first = "".join(session.ask("Where?"))
    assert session.prompt("And?").endswith(f"USER: <image>\nWhere? ASSISTANT: {first.strip()}</s>USER: And? ASSISTANT:")
    second = session.answer("And?")
    assert session.conversation.messages[-1][1] == second
    assert [role for role, _ in session.conversation.messages] == ["USER", "ASSISTANT"] * 2
    assert sum(text.count("<image>") for _, text in session.conversation.messages) == 1


def test_closing_the_stream_ends_the_generation(session):
    session.generation = Generation(max_new_tokens=200)
    pieces = session.ask("Where?")
    said = next(pieces)
    pieces.close()
    assert session.conversation.messages[-1][1] == said.strip()


def test_failure_of_the_generation_reaches_the_caller(session, monkeypatch):
    monkeypatch.setattr(session.model, "generate", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(session.ask("Where?"))
    assert session.conversation.messages == []


def test_places_of_images(parts, tiny):
    tokenizer, model, processor, _ = parts
    images = [Image.open(tiny.images / f"{i}.png") for i in range(2)]
    session = ChatSession(model, tokenizer, processor, get_template("v1"), images, Generation(max_new_tokens=3))
    assert session.with_images("What?") == "<image>\n<image>\nWhat?"
    placed = session.with_images("First <image-placeholder>, then <image-placeholder>?")
    assert placed == "First <image>, then <image>?"
    with pytest.raises(ChatError, match="places for 1 images, and there are 2 to show"):
        session.with_images("Only <image-placeholder>")
    list(session.ask("What?"))
    with pytest.raises(ChatError, match="places for 1 images, and there are 0 to show"):
        list(session.ask("What is in <image>?"))


def test_outgrown_context(session):
    with pytest.raises(ChatError, match=r"exceeds the model's 512. Start again, or ask for fewer new tokens"):
        list(session.ask("please " * 400))


@pytest.mark.parametrize("debug", [False, True])
def test_a_question_that_cannot_be_asked_does_not_end_the_chat(session, capsys, debug):
    answer(session, "What is in <image> and <image>?", "ASSISTANT", debug)
    assert "error: the text has places for 2 images, and there are 1 to show" in capsys.readouterr().err


def test_stop_in_plain_text_is_held_back():
    assert list(_until(iter(["ab#", "#", "#cd"]), "###")) == ["ab"]
    assert "".join(_until(iter(["a#", "b", "##", "c"]), "###")) == "a#b##c"
    assert "".join(_until(iter(["a", "##"]), "###")) == "a##"
    assert list(_until(iter(["a", "", "b"]), None)) == ["a", "b"]


def arguments(**changes):
    values = {
        "model_base": None,
        "conv_mode": "v1",
        "sep": ",",
        "temperature": 0,
        "top_p": None,
        "num_beams": 1,
        "max_new_tokens": 8,
        "query": "What differs?",
    }
    return SimpleNamespace(**values | changes)


def test_run_llava(tiny, tiny_llava, capsys):
    """Upstream's own call of eval_model, with several images; streamed, and with beams."""
    names = ",".join(str(tiny.images / f"{i}.png") for i in range(2))
    text = eval_model(arguments(model_path=str(tiny_llava), image_file=names))
    assert text
    assert capsys.readouterr().out.strip() == text
    other = eval_model(arguments(model_path=str(tiny_llava), image_file=names.replace("0.png", "5.png")))
    assert other != text
    assert eval_model(arguments(model_path=str(tiny_llava), image_file=names, num_beams=2))


def test_chat_in_the_terminal(tiny, tiny_llava, python):
    command = [python, "-m", "llava.serve.cli", "--model-path", tiny_llava, "--conv-mode", "v1"]
    command += ["--image-file", tiny.images / "1.png", "--temperature", 0, "--max-new-tokens", 6, "--debug"]
    command = [str(word) for word in command]
    done = subprocess.run(command, input="Where?\nAnd?\n\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("USER: ") == 3
    assert done.stdout.count("ASSISTANT: ") == 2
    assert done.stdout.endswith("exit\n")
    assert "<image>\\nWhere? ASSISTANT:" in done.stderr
    command[0] = sys.executable
    command[command.index(str(tiny.images / "1.png"))] = "/no/image.png"
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("error: image file /no/image.png does not exist")
    command[command.index(str(tiny_llava))] = str(tiny.llm)
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith(f"error: {tiny.llm} has no vision tower: it cannot be shown images")
