"""The strategies and the lists of layers of the paper (Wang et al., ACL 2025, arXiv 2412.12785).

Layers are 0-based, as in its table of selections.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence


class LayerSelectionError(ValueError):
    """A wrong layer selection; the message names each wrong part and suggests a correction."""


def _sparse_uniform(n: int, k: int) -> Iterable[int]:
    """Spread k layers over the whole depth, from layer 0 on.

    As in the paper's lists for 32 layers (16, 8, 6 and 4 of them): evenly spaced even layers; evenly spaced layers if
    there are not enough even ones.
    """
    if k <= 2:
        # The paper takes the last layer (the highest block influence), then both ends.
        return (0, n - 1)[2 - k :]
    if (n, k) == (40, 10):
        # LLaVA-1.5-13B: the paper lists no indices. The rule would leave a wider gap in the middle.
        return range(0, 40, 4)
    even = (n + 1) // 2
    stride, last = (2, even - 1) if k <= even else (1, n - 1)
    # (2ab + c) // 2c is ab / c rounded half up, in integers.
    return [stride * ((2 * i * last + k - 1) // (2 * (k - 1))) for i in range(k)]


def _block(start: int, k: int, n: int) -> range:
    if start < 0 or start + k > n:
        room = n - start if start >= 0 else start + k
        raise LayerSelectionError(f"{k} layers do not fit between the middle and the end; at most {room} do")
    return range(start, start + k)


STRATEGIES: dict[str, Callable[[int, int], Iterable[int]]] = {
    "sparse-uniform": _sparse_uniform,
    "lower": lambda n, k: range(k),
    "lower-middle": lambda n, k: _block(n // 2 - k, k, n),
    "upper-middle": lambda n, k: _block(n // 2, k, n),
    "top": lambda n, k: range(n - k, n),
    "hybrid": lambda n, k: [*range(k - k // 2), *range(n - k // 2, n)],
}
"""Name -> function of the number of layers and the count (paper, table of selections)."""


def random_layers(n: int, k: int, seed: int) -> list[int]:
    """Draws k of n layers, as a control. The layers of a smaller k are among those of a larger one.

    Ranked by a hash instead of a generator, so that a spec means the same layers on every machine and release.
    """
    return sorted(range(n), key=lambda layer: hashlib.sha256(f"{seed}:{layer}".encode()).digest())[:k]


def _ranked(values: Sequence[float], k: int, lowest: bool) -> list[int]:
    """The first k layers by value; the lower layer of equal ones comes first."""
    return sorted(range(len(values)), key=values.__getitem__, reverse=not lowest)[:k]


def _spread(values: Sequence[float], k: int) -> list[int]:
    """The highest layer of each of k segments of the depth, as equal as possible. Not in the paper."""
    ends = [len(values) * segment // k for segment in range(k + 1)]
    return [max(range(*ends[i : i + 2]), key=values.__getitem__) for i in range(k)]


ORDERS: dict[str, Callable[[Sequence[float], int], list[int]]] = {
    "highest": lambda values, k: _ranked(values, k, lowest=False),
    "lowest": lambda values, k: _ranked(values, k, lowest=True),
    "spread": _spread,
}
"""Name -> function of a metric's values per layer and the count; a score file is used as FILE#METRIC:ORDER:COUNT."""

PAPER_LAYERS = 32
PAPER_LISTS: dict[str, tuple[int, ...]] = {
    "image-attention": (1, 2, 3, 4, 5, 27, 29, 31),
    "parameter-change": (0, 2, 9, 12, 23, 24, 25, 26),
    "block-influence": (12, 15, 18, 25, 27, 29, 30, 31),
    "bi": (12, 15, 18, 25, 27, 29, 30, 31),
    "multimodal-bi": (0, 1, 2, 3, 4, 5, 9, 31),
    "angular": (0, 1, 2, 3, 5, 6, 7, 8),
}
"""What each metric chose for Bunny-Llama-3-8B-V (32 layers), as published."""
