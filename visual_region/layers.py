"""Which decoder layers to tune: the grammar of `--tune_layers`, and the selection. Layers are 0-based."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from llava.checkpoint.record import LayerRecord
from llava.names import close, did_you_mean, listed
from visual_region.scores import ScoreError, ScoreFile
from visual_region.strategies import (
    ORDERS,
    PAPER_LAYERS,
    PAPER_LISTS,
    STRATEGIES,
    LayerSelectionError,
    random_layers,
)

# The help of argparse needs GRAMMAR.replace("%", "%%").
GRAMMAR = (
    "'all'; layers and ranges '0,4,8-11' (also '8~11'); slices '0:32:4'; a strategy with a count or a share, "
    f"'sparse-uniform:8' or 'sparse-uniform:25%' ({', '.join(STRATEGIES)}); "
    "'random:8@0', drawn with seed 0; a list of the paper, 'paper:NAME' "
    f"({', '.join(PAPER_LISTS)}); a metric of a score file, 'scores.json#bi:8' (highest), 'scores.json#bi:lowest:8' or "
    "'scores.json#bi:spread:8' (the highest of each of 8 segments of the depth). "
    "Layers are 0-based; parts joined by commas are united."
)


@dataclass(frozen=True)
class LayerSelection:
    """Decoder layers of one model (sorted, unique, 0-based), its depth, and the spec that they came from."""

    layers: tuple[int, ...]
    num_layers: int
    spec: str

    def __post_init__(self) -> None:
        _require_depth(self.num_layers)
        if not isinstance(self.spec, str):
            raise LayerSelectionError(f"the spec of a layer selection must be text, not {self.spec!r}")
        ints = isinstance(self.layers, tuple) and all(_is_int(layer) for layer in self.layers)
        # Empty is refused because it is ambiguous: PEFT reads layers_to_transform=[] as all layers.
        if not ints or not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise LayerSelectionError(f"layers must be a sorted tuple of at least one unique integer: {self.layers!r}")
        wrong = [layer for layer in self.layers if not 0 <= layer < self.num_layers]
        if wrong:
            raise LayerSelectionError(f"no such layers: {wrong}; {_legal(self.num_layers)}")

    @classmethod
    def parse(cls, spec: str, num_layers: int) -> "LayerSelection":
        """Read a spec (see GRAMMAR) for a model of `num_layers`; the error lists every wrong part."""
        _require_depth(num_layers)
        if not isinstance(spec, str) or not spec.strip():
            hint = did_you_mean("all", "sparse-uniform:25%")
            raise LayerSelectionError(f"the layer selection is empty or no text: {spec!r}; {_legal(num_layers)}{hint}")
        parts = [part.strip() for part in spec.split(",")]
        layers: set[int] = set()
        problems = []
        for position, part in enumerate(parts, start=1):
            try:
                if not part:
                    rest = ",".join(filter(None, parts))
                    raise LayerSelectionError("empty part" + did_you_mean(*[rest] * bool(rest)))
                layers.update(_parse_part(part, num_layers))
            except LayerSelectionError as error:
                problems.append(f"\n  part {position}, {part!r}: {error}")
        if problems:
            raise LayerSelectionError(f"layer selection {spec!r}: {_legal(num_layers)}{''.join(problems)}")
        return cls(tuple(sorted(layers)), num_layers, spec.strip())

    @classmethod
    def of_record(cls, record: LayerRecord) -> "LayerSelection":
        """The tuned layers of a record, numbered as before any removal; the spec is not parsed."""
        layers = record.layers
        return cls(tuple(layers) if isinstance(layers, list) else layers, record.original_depth, record.spec)

    @property
    def record(self) -> LayerRecord:
        """The record after a training of these layers."""
        return LayerRecord({}, self.num_layers).tuned(self.spec, self.layers)

    def scored_elsewhere(self, name: str, digest: Callable[[], str]) -> list[str]:
        """What is said of each score file of the spec that is not of the checkpoint `name` (`identity.digest`)."""
        said = []
        for path in dict.fromkeys(part.rpartition("#")[0].strip() for part in self.spec.split(",") if "#" in part):
            try:
                ScoreFile.read(path).check_fits(name, digest())
            except ScoreError as error:
                said.append(str(error))
        return said

    def __len__(self) -> int:
        return len(self.layers)

    def __contains__(self, layer: object) -> bool:
        return layer in self.layers

    def __iter__(self) -> Iterator[int]:
        return iter(self.layers)

    @property
    def outside(self) -> tuple[int, ...]:
        """The layers that are not selected."""
        return tuple(layer for layer in range(self.num_layers) if layer not in self)

    @property
    def percent(self) -> float:
        """The share of layers that is selected, 0 to 100."""
        return 100 * len(self) / self.num_layers

    def picture(self) -> str:
        """One character per layer, from layer 0 on."""
        return "".join("■" if layer in self else "□" for layer in range(self.num_layers))

    def as_list_spec(self) -> str:
        """The plain list, as a spec for `--tune_layers`."""
        return ",".join(map(str, self.layers))

    def describe(self) -> str:
        """The number of layers and the list, then the picture."""
        share = f"{len(self)} of {self.num_layers} layers ({self.percent:.3g}%)"
        return f"{share}: {self.as_list_spec()}\n{self.picture()}"


_INT = r"-?[0-9]{1,9}"
_RANGE = re.compile(rf"({_INT})(?:\s*[-~]\s*({_INT}))?")
_SLICE = re.compile(rf"({_INT})?\s*:\s*({_INT})?(?:\s*:\s*({_INT})?)?")
_AMOUNT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(%?)")


def _parse_part(part: str, n: int) -> Iterable[int]:
    if "#" in part:
        return _from_scores(part, n)
    if part == "all":
        return range(n)
    if match := _RANGE.fullmatch(part):
        return _from_range(int(match[1]), int(match[2] or match[1]), n)
    if match := _SLICE.fullmatch(part):
        return _from_slice(int(match[1] or 0), int(match[2] or n), int(match[3] or 1), n)
    head, colon, tail = (piece.strip() for piece in part.partition(":"))
    if head == "paper":
        return _from_paper(tail, n)
    if head == "random":
        return _from_seed(tail, n)
    if head in STRATEGIES:
        if not colon:
            raise LayerSelectionError("how many layers" + did_you_mean(f"{head}:25%"))
        return STRATEGIES[head](n, layer_count(tail, n))
    raise LayerSelectionError(_not_understood(part, n))


def _from_range(first: int, last: int, n: int) -> range:
    if 0 <= first <= last < n:
        return range(first, last + 1)
    problem = "the range runs backwards"
    if outside := [f"{i}" for i in dict.fromkeys((first, last)) if not 0 <= i < n]:
        problem = f"there is no layer {' or '.join(outside)}: layers are 0-based and the last is {n - 1}"
    low, high = sorted(min(i + n if i < 0 else i, n - 1) for i in (first, last))
    # A count from the end or from 1 can be corrected; other numbers are for a model of another depth.
    near = all(-n <= i <= n for i in (first, last))
    raise LayerSelectionError(problem + did_you_mean(*[f"{low}-{high}" if low < high else f"{low}"] * near))


def _from_slice(start: int, stop: int, step: int, n: int) -> range:
    """A slice as in Python, but what Python would clamp or return empty is refused, because it hides a wrong depth."""
    if 0 <= start < stop <= n and step >= 1:
        return range(start, stop, step)
    low, high = sorted(max(0, min(i + n if i < 0 else i, n)) for i in (start, stop))
    meant = [f"{low}:{high}" + (f":{abs(step)}" if abs(step) > 1 else "")] if low < high else []
    needs = f"0 <= START < STOP <= {n} (STOP excluded), STEP >= 1"
    raise LayerSelectionError(f"a slice START:STOP:STEP needs {needs}{did_you_mean(*meant)}")


def layer_count(text: str, n: int) -> int:
    """Read a count of layers or a percentage of all, rounded half up."""
    match = _AMOUNT.fullmatch(text)
    value = Fraction(match[1]) if match else Fraction(0)  # exact, so that 25% of 30 is 7.5 and not a little less
    share = bool(match and match[2])
    if not match or (not share and "." in match[1]):
        hint = did_you_mean(f"{float(100 * value):g}%") if 0 < value < 1 else ""
        raise LayerSelectionError(f"{text!r} is not a whole number from 1 to {n}, nor a share such as 25%{hint}")
    count = math.floor(n * value / 100 + Fraction(1, 2)) if share else int(value)
    if not 1 <= count <= n or (share and value > 100):
        selects = "no layer" if count == 0 else "more than all layers"
        raise LayerSelectionError(f"{text} of {n} layers selects {selects}; the count must be from 1 to {n}")
    return count


def _from_paper(name: str, n: int) -> tuple[int, ...]:
    if name not in PAPER_LISTS:
        hint = did_you_mean(*(f"paper:{near}" for near in close(name, PAPER_LISTS, 2)))
        raise LayerSelectionError(f"the paper has no list {name!r}; it has {', '.join(PAPER_LISTS)}{hint}")
    if n != PAPER_LAYERS:
        instead = "score this model and use scores.json#METRIC:COUNT"
        raise LayerSelectionError(f"the paper's lists are for {PAPER_LAYERS} layers; {instead}")
    return PAPER_LISTS[name]


def _from_seed(text: str, n: int) -> list[int]:
    amount, at, seed = (piece.strip() for piece in text.partition("@"))
    if not (at and re.fullmatch(r"[0-9]{1,9}", seed)):
        raise LayerSelectionError(f"layers are drawn with a seed{did_you_mean(f'random:{amount or 8}@0')}")
    return random_layers(n, layer_count(amount, n), int(seed))


@dataclass(frozen=True)
class ScoreQuery:
    """A part of a spec that takes layers from a score file: FILE#METRIC:COUNT, or FILE#METRIC:ORDER:COUNT."""

    path: str
    metric: str
    order: str
    amount: str

    @classmethod
    def parse(cls, part: str) -> "ScoreQuery":
        path, _, query = (piece.strip() for piece in part.rpartition("#"))
        metric, *order = (piece.strip() for piece in query.split(":"))
        amount = order.pop() if order else ""
        order = order or ["highest"]
        if not amount or len(order) > 1 or order[0] not in ORDERS:
            hint = [f"{path}#{metric}:{near}:{amount}" for near in close(order[-1], ORDERS, 1)] if amount else []
            uses = f"FILE#METRIC:COUNT or FILE#METRIC:ORDER:COUNT, where ORDER is {' or '.join(ORDERS)}"
            raise LayerSelectionError(f"a score file is used as {uses}{did_you_mean(*hint)}")
        return cls(path, metric, order[0], amount)


def _from_scores(part: str, n: int) -> list[int]:
    """Layers by a metric of a score file."""
    query = ScoreQuery.parse(part)
    path, metric, count = query.path, query.metric, layer_count(query.amount, n)
    try:
        scores = ScoreFile.read(path)
        values = scores.entry(metric)["values"]
    except ScoreError as error:
        raise LayerSelectionError(str(error)) from error
    if scores.num_layers != n:
        raise LayerSelectionError(f"{path!r} scores a model of {scores.num_layers} layers, this one has {n}")
    # NaN has no rank, and an infinite score is an error of the measurement; json reads both.
    wrong = [i for i, x in enumerate(values) if not (_is_int(x) or (isinstance(x, float) and math.isfinite(x)))]
    if wrong:
        raise LayerSelectionError(
            f"{metric!r} in {path!r} is not a finite number (NaN, null, ...) at {listed('layer', wrong)}"
        )
    return ORDERS[query.order](values, count)


def _not_understood(part: str, n: int) -> str:
    """The error for a part that matches no rule of the grammar, with what was probably meant."""
    if match := re.fullmatch(r"([0-9]+)\s*(?:\.{2,3}=?|[‐‑‒–—−]|to)\s*([0-9]+)", part):
        return "a range is written with - or ~" + did_you_mean(f"{match[1]}-{match[2]}")
    if re.fullmatch(r"[0-9]+([\s;|/+]+[0-9]+)+", part):
        return "layers are joined by commas" + did_you_mean(",".join(re.findall("[0-9]+", part)))
    if re.fullmatch(r"[-+]?[0-9]*\.[0-9]*", part):
        return "a layer is a whole number"
    head, _, tail = (piece.strip() for piece in part.partition(":"))
    if head.endswith(".json"):
        return "a metric of a score file comes after #" + did_you_mean(f"{head}#{tail or 'bi:8'}")
    if head in PAPER_LISTS:
        return "a metric needs its source" + did_you_mean(f"paper:{head}", f"scores.json#{head}:{tail or 8}")
    # The amount is anything at the end, so that 'sparse-uniform:8' is suggested for 'sparse_uniform=8'.
    name, amount = re.fullmatch(r"(.*?)[\s:=]*([0-9.]+\s*%?)?", part, re.DOTALL).groups()
    try:
        layer_count(amount or "", n)
    except LayerSelectionError:
        amount = "25%"
    endings = {"all": "", "random": f":{amount}@0"}
    near = [word + endings.get(word, f":{amount}") for word in close(name, ["all", "random", *STRATEGIES], 2)]
    return f"neither a layer, a range, a slice, nor a strategy ({', '.join(STRATEGIES)}){did_you_mean(*near)}"


def _legal(n: int) -> str:
    return f"layers are 0..{n - 1} of a {n}-layer model"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_depth(num_layers: object) -> None:
    if not _is_int(num_layers) or num_layers < 1:
        raise LayerSelectionError(f"the number of layers must be a positive integer, not {num_layers!r}")
