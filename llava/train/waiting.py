"""How long steps wait for their data."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

_MUCH = 0.02


class DataWait:
    """Times the training loop's waits for batches.

    The first one, with the start of the workers, does not count: it comes once, however long the run is.
    """

    def __init__(self) -> None:
        self._waited = 0.0
        self._first: float | None = None

    @contextmanager
    def timed(self) -> Iterator[None]:
        """For the time in which a step gets its batches."""
        began = time.perf_counter()
        yield
        ended = time.perf_counter()
        if self._first is None:
            self._first = ended
        else:
            self._waited += ended - began

    def measured(self) -> float:
        """The share of the time since the first batches in which this process waited for others."""
        return self._waited / (time.perf_counter() - self._first) if self._first is not None else 0.0


def waiting_line(share: float, workers: int) -> str:
    """What a run prints of `share` at its end, with the flag to raise if it is much."""
    line = f"steps waited for data in {share:.1%} of the time"
    if share <= _MUCH:
        return line
    cores = os.cpu_count()
    return f"{line}; raise --dataloader_num_workers (now {workers} per process; this machine has {cores} cores)"
