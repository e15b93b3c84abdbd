"""`LayerSelection`: which decoder layers a run is about, from the text of `--tune_layers`.

The strategies and lists are those of "Activating Distributed Visual Region within LLMs" (ACL 2025), section 4;
layers count from 0.
"""

import difflib
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAMMAR = (
    "'all'; indices and ranges '0,4,8-11' (also '8~11'); slices '0:32:4'; a strategy with a count or a share, such as "
    "'sparse-uniform:8' or 'sparse-uniform:25%' (also lower, lower-middle, upper-middle, top, hybrid); a list of the "
    "paper 'paper:angular'; a metric of a score file 'scores.json#bi:8' (highest) or 'scores.json#bi:lowest:8'. "
    "Parts joined by commas add up."
)


class LayerSelectionError(ValueError):
    """A layer list that cannot be meant; the message names every wrong part and what is allowed."""


def _sparse_uniform(n: int, k: int) -> list[int]:
    """Evenly spread over depth, on even layers while those suffice: gives every list of the paper's 32 layers."""
    if k == 1:
        # The layer of highest block influence, which the paper takes where nothing can be spread.
        return [n - 1]
    if k == 2:
        return [0, n - 1]
    step, points = (2, (n + 1) // 2) if k <= (n + 1) // 2 else (1, n)
    return [step * math.floor(i * (points - 1) / (k - 1) + 0.5) for i in range(k)]


STRATEGIES: dict[str, Callable[[int, int], list[int]]] = {
    "sparse-uniform": _sparse_uniform,
    "lower": lambda n, k: list(range(k)),
    "lower-middle": lambda n, k: _block_ending_at(n, k, n // 2),
    "upper-middle": lambda n, k: _block_ending_at(n, k, n // 2 + k),
    "top": lambda n, k: list(range(n - k, n)),
    "hybrid": lambda n, k: [*range((k + 1) // 2), *range(n - k // 2, n)],
}
"""Name -> function of the number of layers and the count."""

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


def _block_ending_at(n: int, k: int, end: int) -> list[int]:
    end = min(n, max(end, k))
    return list(range(end - k, end))


@dataclass(frozen=True)
class LayerSelection:
    """Sorted layer indices, the number of layers they are chosen from, and the text they came from."""

    layers: tuple[int, ...]
    num_layers: int
    spec: str

    def __post_init__(self) -> None:
        if not self.layers:
            raise LayerSelectionError(f"{self.spec!r} selects no layer; {_legal(self.num_layers)}")
        if list(self.layers) != sorted(set(self.layers)):
            raise LayerSelectionError(f"layers {self.layers} are not sorted and unique")
        if self.layers[0] < 0 or self.layers[-1] >= self.num_layers:
            raise LayerSelectionError(f"layers {self.layers} do not all exist: {_legal(self.num_layers)}")

    @classmethod
    def parse(cls, spec: str, num_layers: int) -> "LayerSelection":
        """Reads a layer list; see `GRAMMAR`.

        Raises:
            LayerSelectionError: lists everything that is wrong with the text at once.
        """
        if not spec.strip():
            raise LayerSelectionError(f"--tune_layers is empty; {_legal(num_layers)}. Write {GRAMMAR}")
        chosen: set[int] = set()
        errors: list[str] = []
        for part in spec.split(","):
            try:
                chosen.update(_parse_part(part.strip(), num_layers))
            except LayerSelectionError as error:
                errors.append(str(error))
        if errors:
            raise LayerSelectionError(f"--tune_layers {spec!r}: " + "; ".join(errors))
        return cls(tuple(sorted(chosen)), num_layers, spec)

    @property
    def outside(self) -> tuple[int, ...]:
        """The layers that are not selected."""
        return tuple(i for i in range(self.num_layers) if i not in self)

    @property
    def percent(self) -> float:
        return 100 * len(self.layers) / self.num_layers

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[int]:
        return iter(self.layers)

    def __contains__(self, layer: object) -> bool:
        return layer in self.layers

    def picture(self) -> str:
        """One character a layer, from the first to the last: `■` selected, `□` not."""
        return "".join("■" if i in self else "□" for i in range(self.num_layers))

    def as_list_spec(self) -> str:
        """The selection as plain indices, ready to paste into `--tune_layers`."""
        return ",".join(map(str, self.layers))

    def describe(self) -> str:
        return f"{len(self)} of {self.num_layers} layers ({self.percent:.0f}%): {self.as_list_spec()}\n{self.picture()}"

    def to_dict(self) -> dict[str, Any]:
        """For config.json, under `visual_region`."""
        return {"tune_layers": self.spec, "layers": list(self.layers), "num_layers": self.num_layers}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LayerSelection":
        return cls(tuple(values["layers"]), values["num_layers"], values["tune_layers"])


def _legal(n: int) -> str:
    return f"layers are 0..{n - 1} of a {n}-layer model"


def _parse_part(part: str, n: int) -> list[int]:
    if not part:
        raise LayerSelectionError("a part between two commas is empty")
    if part == "all":
        return list(range(n))
    if "#" in part:
        return _from_scores(part, n)
    if re.fullmatch(r"-?\d+", part):
        return [_index(int(part), part, n)]
    if match := re.fullmatch(r"(\d+)\s*[-~]\s*(\d+)", part):
        first, last = (int(text) for text in match.groups())
        if first > last:
            raise LayerSelectionError(f"range {part!r} runs backwards; did you mean '{last}-{first}'?")
        return list(range(_index(first, part, n), _index(last, part, n) + 1))
    if match := re.fullmatch(r"(\d+)\.\.+(\d+)", part):
        raise LayerSelectionError(f"{part!r} is not a range; did you mean '{match[1]}-{match[2]}'?")
    if re.fullmatch(r"\d*:\d*(:\d*)?", part):
        return _slice(part, n)
    name, _, amount = part.partition(":")
    if name == "paper":
        return _paper_list(amount, n)
    if name not in STRATEGIES:
        near = difflib.get_close_matches(name, ["all", "paper", *STRATEGIES], n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise LayerSelectionError(
            f"{part!r} is neither a layer nor a strategy{hint} (strategies: {', '.join(STRATEGIES)}; {_legal(n)})"
        )
    return STRATEGIES[name](n, _amount(amount, part, n))


def _index(i: int, part: str, n: int) -> int:
    if i < 0:
        hint = f"; did you mean {n + i}?" if n + i >= 0 else ""
        raise LayerSelectionError(f"{part!r} is negative; {_legal(n)}{hint}")
    if i >= n:
        hint = f"; layers count from 0, the last is {n - 1}" if i == n else ""
        raise LayerSelectionError(f"layer {i} in {part!r} does not exist; {_legal(n)}{hint}")
    return i


def _slice(part: str, n: int) -> list[int]:
    start, stop, step = ([int(text) if text else None for text in part.split(":")] + [None])[:3]
    if step == 0:
        raise LayerSelectionError(f"slice {part!r} has a step of 0")
    if stop is not None and stop > n:
        raise LayerSelectionError(f"slice {part!r} ends at {stop}, past the last layer; {_legal(n)}")
    chosen = list(range(n))[slice(start, stop, step)]
    if not chosen:
        raise LayerSelectionError(f"slice {part!r} selects no layer; {_legal(n)}")
    return chosen


def _amount(text: str, part: str, n: int) -> int:
    """A count `8` or a share `25%` (rounded half up) of n layers."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
        share = float(match[1])
        if share > 100:
            raise LayerSelectionError(f"{part!r} asks for more than 100%")
        count = math.floor(n * share / 100 + 0.5)
        if count == 0:
            least = math.ceil(50 / n * 10) / 10
            raise LayerSelectionError(f"{part!r} selects no layer: of {n} layers, at least {least:g}% makes one")
        return count
    if not text.isdecimal():
        raise LayerSelectionError(f"{part!r} needs a count or a share, such as '{part.split(':')[0]}:8' or ':25%'")
    count = int(text)
    if not 1 <= count <= n:
        raise LayerSelectionError(f"{part!r} asks for {count} layers; allowed: 1..{n}")
    return count


def _paper_list(name: str, n: int) -> list[int]:
    if name not in PAPER_LISTS:
        near = difflib.get_close_matches(name, PAPER_LISTS, n=1, cutoff=0.4)
        hint = f"; did you mean 'paper:{near[0]}'?" if near else ""
        raise LayerSelectionError(f"'paper:{name}' is not a list of the paper{hint} (lists: {', '.join(PAPER_LISTS)})")
    if n != PAPER_LAYERS:
        raise LayerSelectionError(
            f"'paper:{name}' is a list of a {PAPER_LAYERS}-layer model; this one has {n}. Use a strategy or a score file"
        )
    return list(PAPER_LISTS[name])


def _from_scores(part: str, n: int) -> list[int]:
    match = re.fullmatch(r"(.+)#([^:]+):(?:(lowest|highest):)?([^:]+)", part)
    if not match:
        raise LayerSelectionError(f"{part!r} is not FILE#METRIC:COUNT, such as 'scores.json#angular:8'")
    path, metric, order, amount = Path(match[1]), match[2], match[3] or "highest", match[4]
    if not path.is_file():
        raise LayerSelectionError(f"score file {path} does not exist")
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        depth, metrics = scores["num_layers"], scores["metrics"]
    except (ValueError, KeyError, TypeError) as error:
        raise LayerSelectionError(f"{path} is not a score file: it needs 'num_layers' and 'metrics'") from error
    if depth != n:
        raise LayerSelectionError(f"score file {path} is of a {depth}-layer model; this one has {n} layers")
    if metric not in metrics:
        raise LayerSelectionError(f"score file {path} has no metric {metric!r}; it has {', '.join(metrics)}")
    values = metrics[metric]["values"]
    if len(values) != n or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        raise LayerSelectionError(f"metric {metric!r} in {path} is not {n} finite numbers")
    ranked = sorted(range(n), key=lambda i: (values[i] if order == "lowest" else -values[i], i))
    return ranked[: _amount(amount, part, n)]
