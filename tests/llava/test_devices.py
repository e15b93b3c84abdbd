"""What devices report."""

import torch

from llava.devices import free_memory


def test_what_torch_keeps_for_later_is_free(monkeypatch):
    """Else every evaluation after the first one of a process would take smaller batches."""
    for name, value in (("mem_get_info", (10, 100)), ("memory_reserved", 60), ("memory_allocated", 20)):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, value=value: value)
    assert free_memory(torch.device("cuda")) == 50
