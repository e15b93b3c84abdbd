"""From a benchmark's official download to question files: `python -m llava.eval.prepare NAME --raw DIR`.

Each benchmark has a function `(raw folder, folder of the benchmark under playground/data/eval, options) -> number of
questions`. What the scripts need besides questions (annotations, images) is linked where it does not already lie there.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

from llava.eval.prepare.common import Options, PrepareError

Preparer = Callable[[Path, Path, Options], int]

# name -> module and function, and the folder under playground/data/eval.
PREPARERS: dict[str, tuple[str, str]] = {
    name: (f"llava.eval.prepare.{name}:prepare", name)
    for name in (
        "bbh",
        "docvqa",
        "gqa",
        "mmbench",
        "mmlu",
        "ocrvqa",
        "perplexity",
        "refcocog",
        "scienceqa",
        "tdiuc",
        "textvqa",
    )
}


def load_preparer(name: str) -> Preparer:
    """The function that prepares a benchmark.

    Raises:
        PrepareError: no such benchmark; names those there are.
    """
    if name not in PREPARERS:
        raise PrepareError(f"there is no benchmark {name!r}; there are {', '.join(sorted(PREPARERS))}")
    module, function = PREPARERS[name][0].split(":")
    return getattr(importlib.import_module(module), function)
