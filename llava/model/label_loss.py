"""The loss at labelled positions only."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from llava.constants import IGNORE_INDEX

LOGITS_AT_ONCE = 2**26
"""Logits that are kept at the same time: 256 MiB in float32, 2048 positions of a vocabulary of 32,768."""


def positions_at_once(vocabulary: int) -> int:
    """Labelled positions whose logits are kept together; more positions are computed in chunks."""
    return max(1, LOGITS_AT_ONCE // vocabulary)


def loss_where_labelled(
    hidden: torch.Tensor, labels: torch.Tensor, head: nn.Module, keep_logits: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mean cross-entropy over the positions with a label, in float32, and with `keep_logits` their float32 logits.

    The loss equals the one over all `(batch, length, vocabulary)` logits, which take most of the activation memory.
    Chunks of many positions are computed again in the backward pass. Torch's `linear_cross_entropy` computes them
    once, but rounds the loss to bfloat16, and takes the head's weight instead of the head: not quantised, not in PEFT.
    """
    targets = labels[:, 1:]
    chosen = targets != IGNORE_INDEX
    states, targets = hidden[:, :-1][chosen], targets[chosen]
    size = positions_at_once(head.out_features)
    # ZeRO-3 gathers the head's weight in every call, so all ranks must call it equally often.
    sharded = any(hasattr(parameter, "ds_id") for parameter in head.parameters())
    if len(states) > size and not keep_logits and not sharded:

        def total(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            logits = head(states).float()
            return nn.functional.cross_entropy(logits, targets.to(logits.device), reduction="sum")

        chunks = zip(states.split(size), targets.split(size), strict=True)
        return sum(checkpoint(total, *chunk, use_reentrant=False) for chunk in chunks) / len(targets), None
    logits = head(states).float()
    if len(logits):
        loss = nn.functional.cross_entropy(logits, targets.to(logits.device))
    else:
        # Without labels, the graph must still reach every parameter: other ranks wait for the gradients.
        loss = logits.sum() + hidden.sum() * 0.0
    return loss, logits if keep_logits else None
