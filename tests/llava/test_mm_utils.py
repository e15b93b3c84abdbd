"""Upstream's helpers that its users' scripts call."""

import pytest
import torch

from llava.mm_utils import KeywordsStoppingCriteria
from llava.model.builder import load_pretrained_model


@pytest.mark.parametrize("with_prompt", [False, True])
def test_keywords_stop_the_answer_and_not_the_prompt(tiny_llava, with_prompt):
    """Our models return new tokens only; others return the prompt in front of them."""
    tokenizer, model, _, _ = load_pretrained_model(str(tiny_llava), device="cpu")
    prompt = torch.tensor([[1, *range(5, 25)]])
    answer = model.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=-1)
    assert answer.shape == (1, 6)
    keyword = tokenizer.decode(answer[0, 2:4])
    assert keyword not in tokenizer.decode(answer[0, :3])
    criteria = KeywordsStoppingCriteria([keyword], tokenizer, prompt)
    if with_prompt:
        ids = torch.cat([prompt, answer], dim=1)
        stops = [criteria(ids[:, :end], None).item() for end in range(prompt.shape[1] + 1, ids.shape[1] + 1)]
        assert stops == [False] * 3 + [True] * 3
        assert not KeywordsStoppingCriteria([tokenizer.decode(prompt[0, 3:6])], tokenizer, prompt)(ids, None).item()
    else:
        stopped = model.generate(
            prompt, max_new_tokens=6, do_sample=False, eos_token_id=-1, stopping_criteria=[criteria]
        )
        assert torch.equal(stopped, answer[:, :4])
