"""Greedy and sampled decoding of many prompts at once: the same tokens as one by one.

Prompts are batched, states of leading ids that several prompts share are computed once, and ended rows leave the batch.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, LogitsProcessorList
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.splice import splice_row

_TOP_K = 50
"""transformers' default when sampling, which upstream's scripts leave as it is."""

_COMPACT_AT = 0.75
"""Ended rows leave the batch once at most this share of it is still going: leaving copies the cache."""


@dataclass(frozen=True)
class Prompt:
    """Ids of one prompt.

    Attributes:
        ids: token ids, -200 where an image goes.
        images: a key for each -200, in order; equal keys are the same image.
        shared: how many leading ids, fewer than all, to compute once for all prompts of a batch that begin alike.
    """

    ids: tuple[int, ...]
    images: tuple[Hashable, ...] = ()
    shared: int = 0

    def prefix(self) -> "Prompt":
        ids = self.ids[: self.shared]
        return Prompt(ids, self.images[: ids.count(IMAGE_TOKEN_INDEX)])

    def suffix(self) -> "Prompt":
        ids = self.ids[self.shared :]
        return Prompt(ids, self.images[len(self.images) - ids.count(IMAGE_TOKEN_INDEX) :])


@dataclass
class State:
    """What a batch has read so far.

    Attributes:
        mask: int64 `(batch, read)`: 0 on padding, which may be before and after a shared prefix.
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
    if not any(prompt.shared for prompt in prompts):
        return _read(model, prompts, blocks, None, keep)
    prefixes = [prompt.prefix() for prompt in prompts]
    unique = list(dict.fromkeys(prefixes))
    state = _read(model, unique, blocks, None, 1)
    place = {prefix: i for i, prefix in enumerate(unique)}
    state.keep_rows(torch.tensor([place[prefix] for prefix in prefixes], device=state.mask.device))
    return _read(model, [prompt.suffix() for prompt in prompts], blocks, state, keep)


def _read(
    model: Any, prompts: Sequence[Prompt], blocks: Mapping[Hashable, torch.Tensor], before: State | None, keep: int
) -> State:
    """One forward over rows padded on the left, after what `before` has read."""
    embed, device = model.get_input_embeddings(), model.device
    rows = []
    for prompt in prompts:
        ids = torch.tensor(prompt.ids, device=device)
        words = embed(ids.masked_fill(ids == IMAGE_TOKEN_INDEX, 0))
        rows.append(splice_row(ids, ids, [blocks[key] for key in prompt.images], words)[0])
    lengths = torch.tensor([len(row) for row in rows], device=device)
    embeds = pad_sequence(rows, batch_first=True, padding_side="left")
    columns = torch.arange(embeds.shape[1], device=device)
    padding = embeds.shape[1] - lengths[:, None]
    mask = (columns >= padding).long()
    positions = (columns - padding).clamp(min=0)
    if before is not None:
        mask = torch.cat([before.mask, mask], dim=1)
        positions = positions + before.lengths[:, None]
        lengths = lengths + before.lengths
    cache = before.cache if before is not None else DynamicCache(config=model.config)
    logits = _logits(model, cache, mask, positions, inputs_embeds=embeds, logits_to_keep=keep)
    return State(cache, mask, lengths, logits)


def _logits(
    model: Any, cache: DynamicCache, mask: torch.Tensor, positions: torch.Tensor, **inputs: Any
) -> torch.Tensor:
    return model(**inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True).logits


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
            rows = torch.tensor(going, device=state.mask.device)
            state.keep_rows(rows)
            tokens, active = tokens[rows], [active[place] for place in going]
        else:
            # An ended row stays in the batch until enough others have ended.
            still = set(going)
            active = [row if place in still else None for place, row in enumerate(active)]
        state.mask = torch.cat([state.mask, state.mask.new_ones(len(tokens), 1)], dim=1)
        state.logits = _logits(model, state.cache, state.mask, state.lengths[:, None], input_ids=tokens[:, None])
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
