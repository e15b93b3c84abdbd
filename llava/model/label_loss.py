"""The loss at labelled positions only."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from llava.constants import IGNORE_INDEX

LOGITS_AT_ONCE = 2**26
"""Logits that are kept at the same time: 256 MiB in float32, 2048 positions of a vocabulary of 32,768."""
_ON_A_CPU = 2**21
"""The same of a head that does not train, on a CPU: 8 MiB, which a cache holds."""


def positions_at_once(vocabulary: int) -> int:
    """Labelled positions whose logits are kept together; more positions are computed in chunks."""
    return max(1, LOGITS_AT_ONCE // vocabulary)


def loss_where_labelled(
    hidden: torch.Tensor, labels: torch.Tensor, head: nn.Module, keep_logits: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mean cross-entropy over the positions with a label, in float32, and with `keep_logits` their float32 logits.

    The loss equals the one over all `(batch, length, vocabulary)` logits, which take most of the activation memory.
    Chunks of many positions are computed again in the backward pass. Torch's `linear_cross_entropy` and Liger's compute
    gradients in the forward pass, and take the head's weight instead of the head, which may be quantised or in PEFT;
    torch's adds up the loss in bfloat16, and neither scales fp16's gradients.
    """
    targets = labels[:, 1:]
    chosen = targets != IGNORE_INDEX
    states, targets = hidden[:, :-1][chosen], targets[chosen]
    size = positions_at_once(head.out_features)
    if _has_frozen_weight(head, states) and len(states) and not keep_logits:
        return _FrozenHeadLoss.apply(states, head.weight, targets), None
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


def _has_frozen_weight(head: nn.Module, states: torch.Tensor) -> bool:
    """Whether `_FrozenHeadLoss` can compute the loss of these states, and is wanted: they need a gradient on a CPU."""
    plain = type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad
    whole = plain and not hasattr(head.weight, "ds_id") and head.weight.dtype == states.dtype
    return whole and states.requires_grad and torch.is_grad_enabled() and states.device.type == "cpu"


class _FrozenHeadLoss(torch.autograd.Function):
    """The mean loss of a head that does not train. The gradient is computed along with it, so no logits are kept."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total, grads = torch.zeros(()), []
        size = max(1, _ON_A_CPU // len(weight))
        for part, wanted in zip(states.split(size), targets[:, None].split(size), strict=True):
            logits = functional.linear(part, weight).float()
            scale = logits.logsumexp(-1, keepdim=True)
            total += (scale - logits.gather(-1, wanted)).sum()
            share = logits.sub_(scale).exp_()
            share.scatter_add_(-1, wanted, -torch.ones_like(scale))
            grads.append(share.div_(len(states)).to(weight.dtype) @ weight)
        ctx.save_for_backward(torch.cat(grads))
        return total / len(states)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.saved_tensors[0] * grad.to(ctx.saved_tensors[0].dtype), None, None
