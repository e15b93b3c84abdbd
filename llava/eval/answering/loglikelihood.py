"""Log-likelihoods of given continuations, as lm-eval computes them.

Contexts that begin alike are read once per batch. Continuations that differ only in their last token share a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import tqdm

from llava.eval.answering.batching import BatchSize, plan
from llava.eval.answering.decoding import read_prompts
from llava.eval.answering.flags import DEFAULT_CONTEXT
from llava.eval.answering.forest import Prompt
from llava.tokenization import encoder_for


@dataclass(frozen=True)
class Loglikelihood:
    """Result of one continuation.

    Attributes:
        total: sum of the natural-log probabilities of its tokens.
        greedy: whether each of its tokens is the most probable one.
        cut: how many tokens were dropped at the beginning of a context that did not fit.
    """

    total: float
    greedy: bool
    tokens: int
    cut: int = 0


def encode_pair(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of context and continuation by lm-eval's rule (lm_eval/api/model.py, `_encode_pair`).

    Blanks at the end of the context are part of the continuation. Both are encoded together; the continuation's ids
    are those beyond the length of the context's own. bos is first if the tokenizer adds it, but not twice; an empty
    context is the bos (or eos) token.
    """
    encoder = encoder_for(tokenizer)
    whole, alone = encoder.encode_prompt(context + continuation), encoder.encode_prompt(context.rstrip())
    ids = whole[len(alone) :]
    if not ids:
        raise ValueError(f"the continuation {continuation!r} adds no token to its context")
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return whole[: len(alone)] or [start], ids


@torch.inference_mode()
def loglikelihoods(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[tuple[str, Sequence[str]]],
    batch_size: BatchSize,
    context_length: int | None = None,
) -> Iterator[tuple[int, int, Loglikelihood]]:
    """Yields `(request, continuation, result)` for each continuation of each request `(context, continuations)`.

    Contexts of more than `context_length` (default: the model's) tokens lose their beginning, as in lm-eval.
    """
    limit = context_length or getattr(model.config, "max_position_embeddings", None) or DEFAULT_CONTEXT
    # Continuations with the same ids but for the last one are read as one row.
    rows: dict[tuple[int, ...], list[tuple[int, int, list[int], int]]] = {}
    for place, (context, continuations) in enumerate(requests):
        for number, continuation in enumerate(continuations):
            before, ids = encode_pair(tokenizer, context, continuation)
            whole = [*before, *ids][:-1]
            if len(ids) > limit:
                raise ValueError(f"continuation {number} of request {place} is longer than the model's {limit} tokens")
            kept = tuple(whole[-limit:])
            rows.setdefault(kept, []).append((place, number, ids, len(whole) - len(kept)))
    inputs = list(rows)
    bar = tqdm(total=len(inputs), desc="log-likelihoods", unit="prompt")
    for batch in plan([Prompt(ids) for ids in inputs], 0, batch_size, config=model.config):
        wanted = [rows[inputs[i]] for i in batch.rows]
        keep = max(len(ids) for row in wanted for _, _, ids, _ in row)
        logits = read_prompts(model, batch.prompts, {}, keep).logits.float()
        for row, entries in zip(logits, wanted, strict=True):
            for place, number, ids, cut in entries:
                steps = row[-len(ids) :].log_softmax(-1)
                total = float(steps[range(len(ids)), ids].sum())
                yield place, number, Loglikelihood(total, steps.argmax(-1).tolist() == ids, len(ids), cut)
        bar.update(len(wanted))
    bar.close()
