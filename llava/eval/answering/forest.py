"""Prompts that begin alike as trees: one forward computes every position once, without padding.

The positions of all prompts are one row `(1, total, hidden)`. A tree begins with a chain, the ids that its prompts
share; a prompt that shares nothing is a chain alone. What follows is divided into groups of prompts, and within a
group, ids that begin alike are computed once too. Linear modules and norms do not see any of this; the attention here,
registered with transformers as "forest", computes each chain causally, and each group on its chain and itself.
"""

import contextlib
import functools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache

from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.row_attention import row_attention

_FOREST = "forest"
_LARGEST_GROUP = 256
"""Positions of a group: each looks at all of them, as if they were one prompt."""


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


@dataclass(frozen=True)
class _Group:
    """Positions `start` to `end`, after the chain from `root` to `fork`.

    Attributes:
        mask: bool `(end - start, fork - root + end - start)`: which of chain and group a position sees.
    """

    root: int
    fork: int
    start: int
    end: int
    mask: torch.Tensor


class Forest:
    """The positions of prompts, each computed once.

    Attributes:
        ids: the id at each position; -200 for a position of an image.
        blocks: `(first position, image key)` of each image.
        depths: the place of each position in its prompt.
        paths: of each prompt, its positions in order.
        chains: `(start, end)` of each tree's chain.
    """

    def __init__(self, prompts: Sequence[Prompt], image_tokens: Mapping[Hashable, int]) -> None:
        self.image_tokens = image_tokens
        self.ids: list[int] = []
        self.blocks: list[tuple[int, Hashable]] = []
        self.depths: list[int] = []
        self.paths: list[list[int]] = [[] for _ in prompts]
        self.chains: list[tuple[int, int]] = []
        self.groups: list[_Group] = []
        trees: dict[Hashable, list[int]] = {}
        for row, prompt in enumerate(prompts):
            trees.setdefault(prompt.prefix() if prompt.shared else row, []).append(row)
        for rows in trees.values():
            first = prompts[rows[0]]
            chain = self._append(self._keys(first.prefix() if first.shared else first), 0)
            self.chains.append((chain[0], chain[-1] + 1))
            for row in rows:
                self.paths[row] = list(chain)
            if first.shared:
                self._add_groups({row: self._keys(prompts[row].suffix()) for row in rows}, chain)

    def _keys(self, prompt: Prompt) -> list[Hashable]:
        """What a position is: an id, or the image and the place in it."""
        images = iter(prompt.images)
        keys: list[Hashable] = []
        for token in prompt.ids:
            if token == IMAGE_TOKEN_INDEX:
                image = next(images)
                keys += [(image, place) for place in range(self.image_tokens[image])]
            else:
                keys.append(token)
        return keys

    def _append(self, keys: Sequence[Hashable], depth: int) -> list[int]:
        """New positions, one after another; returns them."""
        start = len(self.ids)
        for key in keys:
            if isinstance(key, tuple) and key[1] == 0:
                self.blocks.append((len(self.ids), key[0]))
            self.ids.append(IMAGE_TOKEN_INDEX if isinstance(key, tuple) else key)
        self.depths += range(depth, depth + len(keys))
        return list(range(start, len(self.ids)))

    def _add_groups(self, suffixes: dict[int, list[Hashable]], chain: list[int]) -> None:
        """Adds suffixes after their chain, in groups."""
        start, children, parents = len(self.ids), {}, []

        def close() -> None:
            size = len(self.ids) - start
            if not size:
                return
            own = torch.zeros(size, size, dtype=torch.bool)
            for place, parent in enumerate(parents):
                if parent >= start:
                    own[place] = own[parent - start]
                own[place, place] = True
            mask = torch.cat([own.new_ones(size, len(chain)), own], dim=1)
            self.groups.append(_Group(chain[0], chain[-1] + 1, start, len(self.ids), mask))

        for row, keys in sorted(suffixes.items(), key=lambda item: list(map(str, item[1]))):
            if len(self.ids) - start + len(keys) > _LARGEST_GROUP:
                close()
                start, children, parents = len(self.ids), {}, []
            node, known = chain[-1], 0
            # An image is shared as a whole, so that its positions are consecutive.
            while known < len(keys) and (node, keys[known]) in children:
                node = children[node, keys[known]]
                self.paths[row].append(node)
                known += 1
            new = self._append(keys[known:], len(self.paths[row]))
            for key, position in zip(keys[known:], new, strict=True):
                children[node, key] = position
                parents.append(node)
                node = position
            self.paths[row] += new
        close()

    def row_cache(self, cache: Any) -> tuple[DynamicCache, torch.Tensor]:
        """Keys and values of each prompt, padded on the left, and the int64 mask `(batch, longest)`."""
        device = cache.layers[0].keys.device
        lengths = torch.tensor([len(path) for path in self.paths], device=device)
        longest = max(map(len, self.paths))
        places = torch.tensor([[0] * (longest - len(path)) + path for path in self.paths], device=device)
        rows = DynamicCache()
        for number, layer in enumerate(cache.layers):
            # Layer by layer, so that only one of them exists twice.
            rows.update(*(_picked(states, places) for states in (layer.keys, layer.values)), number)
            layer.reset()
        mask = torch.arange(longest, device=device) >= longest - lengths[:, None]
        return rows, mask.long()

    def attention(
        self, module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any
    ) -> tuple[torch.Tensor, None]:
        """Attention of all positions, `(1, total, heads, size)`; arguments as transformers gives them."""
        window = options.get("sliding_window")
        attend = functools.partial(row_attention, module, scaling=options.get("scaling"))
        if not self.groups:
            # One kernel for all, where there is one.
            lengths = [end - start for start, end in self.chains]
            return attend(query, key, value, attention_mask=None, sliding_window=window, row_lengths=lengths)
        found = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
        for start, end in self.chains:
            states = (part[:, :, start:end] for part in (query, key, value))
            found[:, start:end] = attend(*states, attention_mask=None, sliding_window=window)[0]
        depths = torch.tensor(self.depths, device=query.device) if window is not None else None
        for group in self.groups:
            asked = slice(group.start, group.end)
            states = [
                torch.cat([part[:, :, group.root : group.fork], part[:, :, asked]], dim=2) for part in (key, value)
            ]
            mask = group.mask.to(query.device)
            if depths is not None:
                before = torch.cat([depths[group.root : group.fork], depths[asked]])
                mask = mask & (depths[asked, None] - before < window)
            found[:, asked] = attend(query[:, :, asked], *states, attention_mask=mask)[0]
        return found, None


def _picked(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """States `(1, heads, total, size)` at places `(batch, length)`, as `(batch, heads, length, size)`."""
    heads, size = states.shape[1], states.shape[3]
    rows = states[0].index_select(1, places.flatten().to(states.device))
    return rows.view(heads, *places.shape, size).transpose(0, 1).contiguous()


_READING: ContextVar[Forest] = ContextVar("forest")
"""Not an argument of the forward: StableLM's layers do not pass arguments on to their attention."""


@contextlib.contextmanager
def reading(model: Any, forest: Forest) -> Iterator[None]:
    """Within the block, the model's forward reads the positions of `forest`."""
    before, token = model.config._attn_implementation, _READING.set(forest)
    # Not `set_attn_implementation`, which also changes a tower inside the model.
    model.config._attn_implementation = _FOREST
    try:
        yield
    finally:
        model.config._attn_implementation = before
        _READING.reset(token)


def _attention(module: nn.Module, *states: torch.Tensor, **options: Any) -> tuple[torch.Tensor, None]:
    query, key, value = states[:3]
    return _READING.get().attention(module, query, key, value, **options)


AttentionInterface.register(_FOREST, _attention)
AttentionMaskInterface.register(_FOREST, lambda **_: None)
