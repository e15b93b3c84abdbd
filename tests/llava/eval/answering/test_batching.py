import random
from types import SimpleNamespace

import pytest
import torch

from llava.eval.answering.batching import BatchSize, length_of, plan
from llava.eval.answering.forest import Prompt

IMAGE = 100


def prompts_of_images(images, each, seed=0):
    luck = random.Random(seed)
    return [
        Prompt((1, 5, 6, -200, 13, *(luck.randrange(7, 90) for _ in range(luck.randrange(3, 12)))), (f"{i}.png",))
        for i in range(images)
        for _ in range(each)
    ]


@pytest.mark.parametrize("share", [None, True, False])
@pytest.mark.parametrize(("images", "each"), [(1, 1), (7, 1), (5, 8)])
def test_every_prompt_is_in_one_batch_and_unchanged(images, each, share):
    prompts = prompts_of_images(images, each)
    prompts += [Prompt((1, 2, 3)), Prompt((1, 2, 3)), Prompt((1,))]
    random.Random(1).shuffle(prompts)
    batches = plan(prompts, IMAGE, BatchSize(6), share)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(prompts)))
    for batch in batches:
        assert len(batch.rows) <= 6
        for row, prompt in zip(batch.rows, batch.prompts, strict=True):
            assert (prompt.ids, prompt.images) == (prompts[row].ids, prompts[row].images)
            assert 0 <= prompt.shared < len(prompt.ids)
            whole = prompt.prefix().ids + prompt.suffix().ids, prompt.prefix().images + prompt.suffix().images
            assert whole == (prompt.ids, prompt.images)


def test_questions_of_an_image_share_it_and_others_do_not():
    prompts = prompts_of_images(6, 5) + prompts_of_images(1, 1, seed=9)[:0]
    batches = plan(prompts, IMAGE, BatchSize(10))
    shared = [prompt for batch in batches for prompt in batch.prompts]
    assert all(prompt.shared >= 5 and prompt.prefix().images == prompt.images for prompt in shared)
    read = sum(length_of(prefix, IMAGE) for batch in batches for prefix in {p.prefix() for p in batch.prompts})
    assert read <= 6 * (IMAGE + 5), "each image is read once: its questions stand together"
    apart = plan(prompts, IMAGE, BatchSize(10), share=False)
    assert not any(prompt.shared for batch in apart for prompt in batch.prompts)
    assert not any(p.shared for b in plan(prompts_of_images(30, 1), IMAGE, BatchSize(10)) for p in b.prompts)


def test_examples_before_a_question_are_shared_subject_by_subject():
    luck = random.Random(3)
    subjects = [tuple(luck.randrange(7, 90) for _ in range(200)) for _ in range(3)]
    prompts = [Prompt((1, 2, *shots, *(luck.randrange(7, 90) for _ in range(20)))) for shots in subjects * 8]
    batches = plan(prompts, 0, BatchSize(8))
    assert {prompt.shared for batch in batches for prompt in batch.prompts} <= set(range(202, 206))
    assert len({prompt.prefix() for batch in batches for prompt in batch.prompts}) == 3


def test_longest_first_and_within_the_bound_of_tokens():
    prompts = [Prompt(tuple(range(n))) for n in (3, 50, 20, 7, 49, 30, 4)]
    batches = plan(prompts, 0, BatchSize(4, tokens=120, given=False), share=False, new_tokens=10)
    assert [[len(p.ids) for p in batch.prompts] for batch in batches] == [[50, 49], [30, 20, 7], [4, 3]]


def test_size_fits_the_memory_and_halves(monkeypatch):
    config = SimpleNamespace(
        num_attention_heads=8, hidden_size=512, num_hidden_layers=10, num_key_value_heads=8, intermediate_size=1024
    )
    model = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32, config=config)
    size = BatchSize.of(None, model)
    assert size.rows > 1
    monkeypatch.setattr("llava.eval.answering.batching.free_memory", lambda device: 10_000_000)
    small = BatchSize.of(None, model)
    assert 1 <= small.tokens < 200
    assert small.halve()
    assert small.rows == size.rows // 2
    while small.halve():
        pass
    assert small.rows == 1
    assert not BatchSize(8).halve(), "a size that was given is never changed"
