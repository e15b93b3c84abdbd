"""The loss at labelled positions equals the one over all logits, also where the logits are computed in chunks."""

import pytest
import torch
from peft.utils import ModulesToSaveWrapper
from torch import nn

from llava.constants import IGNORE_INDEX
from llava.model import label_loss
from llava.model.label_loss import loss_where_labelled, positions_at_once

HIDDEN, VOCABULARY = 16, 50


class Counting(nn.Linear):
    calls = 0

    def forward(self, states):
        self.calls += 1
        return super().forward(states)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(label_loss, "LOGITS_AT_ONCE", 7 * VOCABULARY + 1)


@pytest.fixture
def states():
    torch.manual_seed(0)
    return torch.randn(3, 12, HIDDEN, requires_grad=True)


@pytest.fixture
def labels(states):
    labels = torch.randint(0, VOCABULARY, states.shape[:2])
    labels[0, :5] = labels[2] = IGNORE_INDEX
    return labels


def reference(states, labels, head):
    """The loss over the logits of all positions."""
    logits = head(states[:, :-1]).float().flatten(0, 1)
    return nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX)


def gradients(loss, *tensors):
    found = torch.autograd.grad(loss, [tensor for tensor in tensors if tensor.requires_grad])
    return [loss.detach(), *found]


@pytest.mark.parametrize("trains", [True, False])
def test_chunks_give_the_same_loss_and_gradients(states, labels, trains):
    head = Counting(HIDDEN, VOCABULARY).requires_grad_(trains)
    wanted = gradients(reference(states, labels, head), states, head.weight, head.bias)
    head.calls = 0
    loss, logits = loss_where_labelled(states, labels, head)
    assert logits is None
    # 18 labelled positions, 7 at once.
    assert head.calls == 3
    found = gradients(loss * 3, states, head.weight, head.bias)
    assert head.calls == 6
    found[1:] = [grad / 3 for grad in found[1:]]
    torch.testing.assert_close(found, [wanted[0] * 3, *wanted[1:]], rtol=1e-5, atol=1e-7)


def test_a_head_inside_peft(states, labels):
    plain = nn.Linear(HIDDEN, VOCABULARY, bias=False)
    wanted = gradients(reference(states, labels, plain), states, plain.weight)
    head = ModulesToSaveWrapper(plain, "default")
    copied = head.modules_to_save["default"].weight
    assert copied.requires_grad
    found = gradients(loss_where_labelled(states, labels, head)[0], states, copied)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_the_precision_of_autocast_stays(states, labels):
    """The loss is summed in float32: torch's `linear_cross_entropy` would round it to bfloat16."""
    head = nn.Linear(HIDDEN, VOCABULARY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_where_labelled(states, labels, head)[0]
        wanted = reference(states, labels, head)
    assert loss.dtype == torch.float32
    found, wanted = (gradients(value, states, head.weight) for value in (loss, wanted))
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(found[1:], wanted[1:], rtol=0.02, atol=1e-3)


def test_logits_that_are_kept_are_whole(states, labels):
    head = Counting(HIDDEN, VOCABULARY)
    loss, logits = loss_where_labelled(states, labels, head, keep_logits=True)
    assert head.calls == 1
    chosen = labels[:, 1:] != IGNORE_INDEX
    torch.testing.assert_close(logits, head(states[:, :-1][chosen]))
    torch.testing.assert_close(loss, reference(states, labels, head))


def test_a_sharded_head_is_called_once(states, labels):
    """Ranks have different numbers of labels; under ZeRO-3 each call of the head is a collective."""
    head = Counting(HIDDEN, VOCABULARY)
    head.weight.ds_id = 0
    loss, _ = loss_where_labelled(states, labels, head)
    assert head.calls == 1
    torch.testing.assert_close(loss, reference(states, labels, head))


def test_without_labels_every_parameter_has_a_gradient(states, labels):
    head = nn.Linear(HIDDEN, VOCABULARY)
    loss, _ = loss_where_labelled(states, torch.full_like(labels, IGNORE_INDEX), head)
    assert loss.item() == 0
    assert all(not grad.any() for grad in gradients(loss, states, head.weight, head.bias))


def test_without_gradients(states, labels):
    head = nn.Linear(HIDDEN, VOCABULARY)
    with torch.no_grad():
        torch.testing.assert_close(loss_where_labelled(states, labels, head)[0], reference(states, labels, head))


def test_a_vocabulary_larger_than_a_chunk():
    assert positions_at_once(10**9) == 1
