"""Greedy and sampled decoding of many prompts at once: the same tokens as one by one.

Prompts are batched, states of leading ids that several prompts share are computed once, and ended rows leave the batch.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessorList
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from llava.constants import IMAGE_TOKEN_INDEX
from llava.eval.answering.forest import Forest, Prompt, reading

_TOP_K = 50
"""transformers' default when sampling, which upstream's scripts leave as it is."""

_COMPACT_AT = 0.75
"""Ended rows leave the batch once at most this share of it is still going: leaving copies the cache."""


@dataclass
class State:
    """What a batch has read so far.

    Attributes:
        mask: int64 `(batch, read)`: 0 on padding, which is on the left.
        lengths: int64 `(batch,)`: ids and image tokens read by each row, the position of its next token.
        logits: float `(batch, kept, vocabulary)` at the last positions.
    """

    cache: DynamicCache
    mask: torch.Tensor
    lengths: torch.Tensor
    logits: torch.Tensor

    def keep_rows(self, rows: torch.Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask, self.lengths, self.logits = self.mask[rows], self.lengths[rows], self.logits[rows]


def read_prompts(
    model: Any, prompts: Sequence[Prompt], blocks: Mapping[Hashable, torch.Tensor], keep: int = 1
) -> State:
    """Runs the model over whole prompts.

    Args:
        blocks: image key -> image tokens `(tokens, hidden_size)`, as `encode_images` returns them.
        keep: how many last positions need logits.
    """
    missing = {key for prompt in prompts for key in prompt.images} - set(blocks)
    if missing or any(len(prompt.images) != prompt.ids.count(IMAGE_TOKEN_INDEX) for prompt in prompts):
        raise ValueError("the prompt holds <image> tokens but no images were given")
    forest = Forest(prompts, {key: len(block) for key, block in blocks.items()})
    device = model.device
    ids = torch.tensor(forest.ids, device=device)
    embeds = model.get_input_embeddings()(ids.masked_fill(ids == IMAGE_TOKEN_INDEX, 0))
    for start, key in forest.blocks:
        embeds[start : start + len(blocks[key])] = blocks[key].to(embeds)
    lasts = [path[-keep:] for path in forest.paths]
    wanted = sorted({place for last in lasts for place in last})
    # Without the config, whose sliding layers would forget positions of other prompts.
    cache = DynamicCache()
    positions = torch.tensor([forest.depths], device=device)
    inputs = {"inputs_embeds": embeds[None], "position_ids": positions, "past_key_values": cache}
    with reading(model, forest):
        hidden = model.get_model()(**inputs, attention_mask=None, use_cache=True).last_hidden_state
    # A list: the states may be on another device than the inputs, if the model is on several.
    few = model.get_output_embeddings()(hidden[:, wanted])
    number = {place: i for i, place in enumerate(wanted)}
    # A prompt shorter than `keep` repeats its first logits, as padding.
    rows = [[last[0]] * (keep - len(last)) + last for last in lasts]
    logits = few[0][torch.tensor([[number[place] for place in row] for row in rows], device=few.device)]
    cache, mask = forest.row_cache(cache)
    return State(cache, mask, torch.tensor([len(path) for path in forest.paths], device=device), logits)


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[Prompt],
    blocks: Mapping[Hashable, torch.Tensor],
    max_new_tokens: int,
    stop_ids: Collection[int],
    ended: Callable[[list[int]], bool] | None = None,
    temperature: float = 0.0,
    top_p: float | None = None,
    seeds: Sequence[int] = (),
) -> list[list[int]]:
    """New tokens of each prompt, without the stop token.

    Args:
        stop_ids: tokens that end a row.
        ended: whether a row's new tokens end it (a stop string).
        temperature: 0 takes the most probable token.
        seeds: one per prompt, for sampling.
    """
    new: list[list[int]] = [[] for _ in prompts]
    state = read_prompts(model, prompts, blocks)
    draw = _sampler(temperature, top_p, seeds) if temperature > 0 else lambda logits, rows: logits.argmax(-1)
    active = list(range(len(prompts)))
    for step in range(max_new_tokens):
        tokens = draw(state.logits[:, -1].float(), active)
        going = []
        for place, (row, token) in enumerate(zip(active, tokens.tolist(), strict=True)):
            if row is None or token in stop_ids:
                continue
            new[row].append(token)
            if ended is None or not ended(new[row]):
                going.append(place)
        if not going or step + 1 == max_new_tokens:
            break
        if len(going) <= _COMPACT_AT * len(active):
            # On the CPU: layers of the cache may be on several devices.
            rows = torch.tensor(going)
            state.keep_rows(rows)
            tokens, active = tokens[rows], [active[place] for place in going]
        else:
            # An ended row stays in the batch until enough others have ended.
            still = set(going)
            active = [row if place in still else None for place, row in enumerate(active)]
        state.mask = torch.cat([state.mask, state.mask.new_ones(len(tokens), 1)], dim=1)
        inputs = {"position_ids": state.lengths[:, None], "past_key_values": state.cache, "use_cache": True}
        state.logits = model(input_ids=tokens[:, None], attention_mask=state.mask, **inputs).logits
        state.lengths = state.lengths + 1
    return new


def _sampler(
    temperature: float, top_p: float | None, seeds: Sequence[int]
) -> Callable[[torch.Tensor, list[int | None]], torch.Tensor]:
    """A function from logits `(batch, vocabulary)` and the rows they belong to, to tokens `(batch,)`.

    Each row has its own generator, so that a draw does not depend on the batch.
    """
    processors = LogitsProcessorList([TemperatureLogitsWarper(temperature), TopKLogitsWarper(_TOP_K)])
    if top_p is not None and top_p < 1:
        processors.append(TopPLogitsWarper(top_p))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(logits: torch.Tensor, rows: list[int | None]) -> torch.Tensor:
        shares = processors(None, logits).softmax(-1).cpu()
        tokens = [
            0 if row is None else int(torch.multinomial(share, 1, generator=generators[row]))
            for share, row in zip(shares, rows, strict=True)
        ]
        return torch.tensor(tokens, device=logits.device)

    return draw
