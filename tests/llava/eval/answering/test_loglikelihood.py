from pathlib import Path

import pytest
import torch

from llava.checkpoint.folder import open_checkpoint
from llava.eval.answering.answerer import Answerer, Generation
from llava.eval.answering.batching import BatchSize
from llava.eval.answering.loglikelihood import encode_pair
from llava.eval.answering.loglikelihood import loglikelihoods as iterate
from llava.eval.answering.questions import Question
from llava.model.builder import load_checkpoint
from llava.tokenization import encoder_for, ids_to_text

SHOTS = "Which colour has the sky?\nA. blue\nB. red\nAnswer: A\n\n" * 3
REQUESTS = [
    *(
        (SHOTS + f"What is {i} and {i + 1}?\nA. {i}\nB. {2 * i + 1}\nAnswer:", (" A", " B", " C", " D"))
        for i in range(12)
    ),
    ("Where is the line? ", ("left", "at the very top of it", "right")),
    ("", ("yes it is", "no")),
    *((f"The story of {'a very ' * i}long line", (" ends here.", " goes on and on, and on")) for i in range(5)),
]


@pytest.fixture(scope="module")
def text_model(tiny_llava):
    tokenizer, model, _, _ = load_checkpoint(open_checkpoint(tiny_llava), device="cpu", text_only=True)
    return tokenizer, model


def loglikelihoods(model, tokenizer, requests, batch_size=None, context_length=None):
    """In the order of the requests, one entry for each continuation."""
    results = [[None] * len(continuations) for _, continuations in requests]
    size = BatchSize.of(batch_size, model)
    for place, number, found in iterate(model, tokenizer, requests, size, context_length):
        results[place][number] = found
    return results


def generate_texts(model, tokenizer, prompts, generation, batch_size=None):
    answerer = Answerer(model, tokenizer, None, None, Path(), generation)
    questions = [Question(i, i, prompt, None) for i, prompt in enumerate(prompts)]
    texts = {}
    for batch in answerer.batches(questions, batch_size):
        texts |= zip(batch.rows, answerer.answer([questions[i] for i in batch.rows], batch.prompts), strict=True)
    return [texts[i] for i in range(len(prompts))]


@torch.no_grad()
def naive(model, tokenizer, context, continuation):
    """One row, no padding, no cache, all logits."""
    before, ids = encode_pair(tokenizer, context, continuation)
    logits = model(input_ids=torch.tensor([[*before, *ids]])).logits[0].log_softmax(-1)
    steps = logits[len(before) - 1 : -1]
    total = sum(float(step[token]) for step, token in zip(steps, ids, strict=True))
    return total, steps.argmax(-1).tolist() == ids


@pytest.mark.parametrize("batch_size", [1, 7, None])
def test_equals_one_by_one(text_model, batch_size):
    tokenizer, model = text_model
    results = loglikelihoods(model, tokenizer, REQUESTS, batch_size)
    assert [len(row) for row in results] == [len(continuations) for _, continuations in REQUESTS]
    for (context, continuations), row in zip(REQUESTS, results, strict=True):
        for continuation, found in zip(continuations, row, strict=True):
            total, greedy = naive(model, tokenizer, context, continuation)
            assert found.total == pytest.approx(total, abs=1e-4)
            assert (found.greedy, found.cut) == (greedy, 0)
            assert found.tokens == len(encode_pair(tokenizer, context, continuation)[1])


def test_a_greedy_continuation_is_found_greedy(text_model):
    """The token that `generate` gives, of contexts after which the token's text is encoded as that token again."""
    tokenizer, model = text_model
    encoder = encoder_for(tokenizer)
    sentence = "Where is the red line at the top of a very long story and which colour has the sky over it now"
    words, requests = sentence.split(), []
    for number in range(1, len(words) + 1):
        context = " ".join(words[:number])
        before = encoder.encode_prompt(context)
        (token,) = model.generate(torch.tensor([before]), max_new_tokens=1, do_sample=False, pad_token_id=0)[0].tolist()
        text = (tokenizer.convert_ids_to_tokens(token) or "").replace("\u2581", " ")
        if text.strip() and encoder.encode_prompt(context + text) == [*before, token]:
            requests.append((context, [text]))
    assert requests
    found = [row[0] for row in loglikelihoods(model, tokenizer, requests, 8)]
    assert all(one.greedy and one.tokens == 1 for one in found)
    others = [" " + text for i in range(300, 600) if (text := tokenizer.decode([i])).strip()]
    (rest,) = loglikelihoods(model, tokenizer, [(requests[0][0], others)], 64)
    assert all(found[0].total >= other.total - 1e-5 for other in rest if other.tokens == 1)


def test_blanks_between_go_to_the_continuation(text_model):
    tokenizer, _ = text_model
    assert encode_pair(tokenizer, "Where is it? ", "left") == encode_pair(tokenizer, "Where is it?", " left")
    before, ids = encode_pair(tokenizer, "", "yes")
    assert before == [tokenizer.bos_token_id]
    assert ids
    with pytest.raises(ValueError, match="adds no token"):
        encode_pair(tokenizer, "Where", "")


def test_a_long_context_loses_its_beginning_and_says_so(text_model):
    tokenizer, model = text_model
    context = "please " * 100 + "Where?"
    whole = len(encode_pair(tokenizer, context, " left")[0]) + len(encode_pair(tokenizer, context, " left")[1])
    (found,) = loglikelihoods(model, tokenizer, [(context, [" left"])], context_length=50)[0]
    assert found.cut == whole - 1 - 50
    with pytest.raises(ValueError, match="longer than the model's 2 tokens"):
        loglikelihoods(model, tokenizer, [("a", [" one two three four"])], context_length=2)


def test_texts_equal_generate_and_need_no_tower(text_model):
    """Raw prompts through transformers' own `generate`, one by one, against ours batched with shared beginnings."""
    tokenizer, model = text_model
    assert model.get_vision_tower() is None
    prompts = [context for context, _ in REQUESTS if context]
    ours = generate_texts(model, tokenizer, prompts, Generation(10), batch_size=8)
    for prompt, text in zip(prompts, ours, strict=True):
        ids = torch.tensor([tokenizer(prompt).input_ids])
        output = model.generate(ids, max_new_tokens=10, do_sample=False, pad_token_id=0)
        assert text == ids_to_text(tokenizer, output[0]).strip()


def test_stop_strings_end_and_cut(text_model):
    tokenizer, model = text_model
    prompts = [f"Where is line {i}?" for i in range(12)]
    free = generate_texts(model, tokenizer, prompts, Generation(16))
    stop = next(text[3:5] for text in free if len(text) > 8 and text[3:5].isascii())
    cut = generate_texts(model, tokenizer, prompts, Generation(16, stop_strings=(stop,)), batch_size=5)
    assert cut == [text.split(stop)[0].strip() for text in free]
    assert cut != free
