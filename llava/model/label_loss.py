"""The loss at labelled positions only."""

import torch
from torch import nn

from llava.constants import IGNORE_INDEX


def loss_where_labelled(
    hidden: torch.Tensor, labels: torch.Tensor, head: nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy over the positions with a label, and their logits, both float32.

    The loss equals the one over all `(batch, length, vocabulary)` logits, which take most of the activation memory.
    """
    targets = labels[:, 1:]
    chosen = targets != IGNORE_INDEX
    logits = head(hidden[:, :-1][chosen]).float()
    if not len(logits):
        # Without labels, the graph must still reach every parameter: other ranks wait for the gradients.
        return logits.sum() + hidden.sum() * 0.0, logits
    return nn.functional.cross_entropy(logits, targets[chosen].to(logits.device)), logits
