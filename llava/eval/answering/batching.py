"""Which prompts are answered together: of similar length, as many as fit; what they share is read once."""

import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.devices import free_memory, is_out_of_memory
from llava.eval.answering.errors import EvaluationError
from llava.eval.answering.forest import Prompt

_SMALLEST_SAVING = 32
"""Tokens that a group must save to share its beginning."""

_WORTH = 8
"""Sharing must save one in so many tokens: attention in groups costs a little more than in single prompts."""

_MOST_ROWS = {"cpu": 64, "cuda": 256}
_MOST_TOKENS = {"cpu": 1 << 13, "cuda": 1 << 18}
"""Larger batches are not faster: the processor is busy already."""

ImageTokens = int | Mapping[Hashable, int]
"""Tokens of every image, or of each by its key."""


@dataclass(frozen=True)
class Batch:
    """Prompts to be answered together, and their places among all that were planned."""

    rows: list[int]
    prompts: list[Prompt]


@dataclass
class BatchSize:
    """How much goes into one batch.

    Attributes:
        rows: most prompts.
        tokens: most prompts times tokens of the longest; None sets no limit.
        given: set by the user, and never changed.
    """

    rows: int
    tokens: int | None = None
    given: bool = True

    @classmethod
    def of(cls, rows: int | None, model: Any, new_tokens: int = 0) -> "BatchSize":
        """The size of --batch-size; None (auto) is an estimate from free memory and `new_tokens` per prompt."""
        if rows is not None:
            return cls(rows)
        kind = "cuda" if model.device.type == "cuda" else "cpu"
        room = int(0.6 * free_memory(model.device)) // _bytes_per_token(model)
        return cls(_MOST_ROWS[kind], max(1, min(room, _MOST_TOKENS[kind] + new_tokens * _MOST_ROWS[kind])), False)

    def halve(self) -> bool:
        """Halves the size; False if it was given or cannot be halved."""
        if self.given or self.rows == 1:
            return False
        self.rows //= 2
        self.tokens = None if self.tokens is None else max(1, self.tokens // 2)
        return True

    def halve_after(self, error: Exception) -> None:
        """Halves the size after memory ran out; raises `EvaluationError` if it cannot, `error` if that is another."""
        if not is_out_of_memory(error):
            raise error
        rows = self.rows
        if not self.halve():
            raise EvaluationError(
                f"memory ran out with {rows} questions at once; "
                + ("use a smaller --batch-size, or auto" if self.given else "this model does not fit")
            ) from error
        print(f"memory ran out; going on with {self.rows} questions at once")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _bytes_per_token(model: Any) -> int:
    """Keys and values of a token in all layers, and its activations in one."""
    config, width = model.config, model.dtype.itemsize
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    states = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * size
    # Growing a cache by concatenation holds one layer twice; the MLP's two inner products and the residual stream.
    return width * (states + states // config.num_hidden_layers + 3 * config.intermediate_size + 8 * config.hidden_size)


def until_done(
    size: BatchSize, keys: Sequence[Hashable], work: Callable[[list[Hashable]], Iterable[tuple[Hashable, Any]]]
) -> list[Any]:
    """The results of all keys, in order, in smaller batches from where memory runs out.

    Args:
        size: the batch size that `work` uses.
        work: yields `(key, result)` for the keys that are left, in any order.
    """
    results: dict[Hashable, Any] = {}
    while left := [key for key in keys if key not in results]:
        try:
            for key, result in work(left):
                results[key] = result
        except (RuntimeError, MemoryError) as error:
            size.halve_after(error)
    return [results[key] for key in keys]


def length_of(prompt: Prompt, image_tokens: ImageTokens) -> int:
    """Tokens that the model reads: ids, with `image_tokens` in place of each -200."""
    return len(prompt.ids) + sum(_tokens_of(image, image_tokens) - 1 for image in prompt.images)


def _tokens_of(image: Hashable, image_tokens: ImageTokens) -> int:
    return image_tokens if isinstance(image_tokens, int) else image_tokens[image]


def plan(
    prompts: Sequence[Prompt],
    image_tokens: ImageTokens,
    size: BatchSize,
    share: bool | None = None,
    new_tokens: int = 0,
    config: Any = None,
) -> list[Batch]:
    """Divides all prompts into batches, longest first, so that running out of memory shows at once.

    Args:
        share: read ids that several prompts begin with (an image, few-shot examples) once per batch; None: if that
            saves more than it costs.
        new_tokens: tokens that may be generated for each prompt.
        config: the model's, whose positions may keep prompts apart (`of_one_rotation`).
    """
    batches = []
    for rows in of_one_rotation([length_of(prompt, image_tokens) for prompt in prompts], config, new_tokens):
        found = _plan([prompts[row] for row in rows], image_tokens, size, share, new_tokens)
        batches += [Batch([rows[i] for i in batch.rows], batch.prompts) for batch in found]
    return batches


def of_one_rotation(lengths: Sequence[int], config: Any, new_tokens: int = 0) -> list[list[int]]:
    """Groups of inputs, as places in `lengths`, that are rotated in one batch as they are by themselves.

    With `longrope` (Phi-3-128k) and `dynamic`, transformers takes the frequencies of a whole call from its longest row
    (modeling_rope_utils.py, `dynamic_rope_update`). Inputs that come to need others while they grow are alone. With
    `dynamic`, all that outgrow the limit are, and they still depend on calls before.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind not in ("longrope", "dynamic"):
        return [list(range(len(lengths)))]
    # At the very limit, `dynamic` keeps the frequencies of a longer call before.
    limit = config.max_position_embeddings - 1 if kind == "dynamic" else rope["original_max_position_embeddings"]
    below = [i for i, length in enumerate(lengths) if length + new_tokens <= limit]
    above = [i for i, length in enumerate(lengths) if kind == "longrope" and length > limit]
    others = sorted(set(range(len(lengths))) - {*below, *above}, key=lambda i: -lengths[i])
    return [group for group in (above, *([i] for i in others), below) if group]


def _plan(
    prompts: Sequence[Prompt], image_tokens: ImageTokens, size: BatchSize, share: bool | None, new_tokens: int
) -> list[Batch]:
    alone = [Prompt(prompt.ids, prompt.images) for prompt in prompts]
    apart = partial(_batches, alone, range(len(alone)), image_tokens, size, new_tokens)
    if share is False or len(prompts) < 2:
        return apart()
    shared, saved = _with_prefixes(alone, image_tokens)
    groups = [i for i, prompt in enumerate(shared) if prompt.shared]
    single = [i for i, prompt in enumerate(shared) if not prompt.shared]
    worth = saved * _WORTH > sum(length_of(prompt, image_tokens) for prompt in alone)
    if not (worth or (share and groups)):
        return apart()
    together = _batches(shared, groups, image_tokens, size, new_tokens)
    return together + _batches(shared, single, image_tokens, size, new_tokens)


def _batches(
    prompts: Sequence[Prompt], rows: Sequence[int], image_tokens: ImageTokens, size: BatchSize, new_tokens: int
) -> list[Batch]:
    """Rows in batches: prompts of one prefix next to each other, long prefixes first, then long suffixes."""
    before = {i: length_of(prompts[i].prefix(), image_tokens) for i in rows}
    after = {i: length_of(prompts[i], image_tokens) - before[i] for i in rows}
    by_prefix: dict[Prompt, list[int]] = {}
    for i in sorted(rows):
        by_prefix.setdefault(prompts[i].prefix(), []).append(i)
    groups = sorted(by_prefix.values(), key=lambda group: (-before[group[0]], -max(after[i] for i in group)))
    batches: list[list[int]] = []
    widest = (0, 0)
    for i in (i for group in groups for i in sorted(group, key=lambda i: -after[i])):
        widest = max(widest[0], before[i]), max(widest[1], after[i])
        count = len(batches[-1]) + 1 if batches else 1
        tokens = count * (sum(widest) + new_tokens)
        if not batches or count > size.rows or (size.tokens is not None and tokens > size.tokens):
            batches.append([])
            widest = before[i], after[i]
        batches[-1].append(i)
    return [Batch(batch, [prompts[i] for i in batch]) for batch in batches]


def _with_prefixes(prompts: Sequence[Prompt], image_tokens: ImageTokens) -> tuple[list[Prompt], int]:
    """The prompts with `shared` filled in, and how many tokens that saves.

    Sorted, prompts that begin alike are neighbours. They are separated if two neighbours have much less in common
    than one of them has with its other neighbour.
    """
    names: dict[Any, int] = {}
    keys = []
    for prompt in prompts:
        images = iter(prompt.images)
        # Each image has an id of its own below -200, so that comparing ids compares images.
        keys.append(
            [
                IMAGE_TOKEN_INDEX - 1 - names.setdefault(next(images), len(names)) if i == IMAGE_TOKEN_INDEX else i
                for i in prompt.ids
            ]
        )
    image_of = {IMAGE_TOKEN_INDEX - 1 - number: image for image, number in names.items()}
    order = sorted(range(len(prompts)), key=keys.__getitem__)
    common = [_common(keys[a], keys[b]) for a, b in itertools.pairwise(order)]

    def weight(key: list[int], count: int) -> int:
        images = (image_of[i] for i in key[:count] if i < IMAGE_TOKEN_INDEX)
        return count + sum(_tokens_of(image, image_tokens) - 1 for image in images)

    # What each prompt has in common with the next; none with the one before the first and after the last.
    weights = [0, *(weight(keys[row], count) for row, count in zip(order, common, strict=False)), 0]
    best = [max(pair) for pair in itertools.pairwise(weights)]
    result, saved = list(prompts), 0
    start = 0
    for end, (row, next_weight) in enumerate(zip(order, weights[1:], strict=True), start=1):
        if end < len(order) and 2 * next_weight >= max(best[end - 1], best[end]):
            continue
        members = order[start:end]
        if len(members) > 1:
            count = min(*common[start : end - 1], *(len(keys[member]) - 1 for member in members))
            gain = (len(members) - 1) * weight(keys[row], count)
            if gain >= _SMALLEST_SAVING:
                saved += gain
                for member in members:
                    result[member] = replace(result[member], shared=count)
        start = end
    return result, saved


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading entries two sequences share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
