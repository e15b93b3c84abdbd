"""The strategies and the lists of layers of the paper (Wang et al., ACL 2025, arXiv 2412.12785; docs/paper.md).

Layers are 0-based, as in its table of selections.
"""

from collections.abc import Callable, Iterable


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
