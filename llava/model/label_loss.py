"""The loss over labelled positions alone."""

import torch
from torch import nn

from llava.constants import IGNORE_INDEX


def loss_where_labelled(
    hidden: torch.Tensor, labels: torch.Tensor, head: nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy over the positions that have a label, in float32, and the logits there.

    The sum is the same as over all `(batch, length, vocabulary)` logits. Those take most of the activation memory of a
    step at a vocabulary of 32,000 to 152,000, and nothing else needs them.
    """
    targets = labels[:, 1:]
    chosen = targets != IGNORE_INDEX
    logits = head(hidden[:, :-1][chosen]).float()
    if not len(logits):
        # The batch has no label and nothing to learn. The graph must still reach every parameter, the head's too,
        # because the other ranks of a sharded run wait for its gradient.
        return logits.sum() + hidden.sum() * 0.0, logits
    return nn.functional.cross_entropy(logits, targets[chosen].to(logits.device)), logits
