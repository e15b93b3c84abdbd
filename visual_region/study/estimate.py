"""What is left of a study, in device hours: from what finished cells took, else by the cost model."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from statistics import fmean

from llava.checkpoint.card import read_run
from llava.flags import Parser
from llava.names import count
from visual_region.commands.flags import ADD_FLAGS
from visual_region.study.plan import Plan
from visual_region.study.plan_checks import depth_of, filled, tuned_layers
from visual_region.study.state import State
from visual_region.study.steps import EVALUATE, TRAIN, Job, places

SHARED = "the shared stages"
"""Their name among what has no estimate: they are any commands."""


@dataclass(frozen=True)
class Price:
    """Device hours by the cost model: of a training, of one in which every layer is recomputed, and of the answers."""

    train: float
    recomputed: float
    answers: float


@dataclass(frozen=True)
class Left:
    """What is left.

    Attributes:
        hours: device hours, of the steps that have an estimate.
        most: the same, if every training recomputes all layers; only the cost model tells them apart.
        unknown: steps without an estimate, and `SHARED` for those of the shared stages.
        measured: whether finished cells are behind it.
    """

    hours: float = 0.0
    most: float = 0.0
    unknown: Collection[str] = field(default_factory=set)
    measured: bool = False


class Estimate:
    """Estimates of a plan, by the states of its cells."""

    def __init__(self, plan: Plan, states: Sequence[State]) -> None:
        self.plan, self.note, self._depth = plan, "", depth_of(plan)
        runs = {state.job.name: read_run(state.job.folder) for state in states}
        self.devices = max((run["devices"]["number"] for run in runs.values() if run), default=1)
        self.cells = sum(not state.left for state in states)
        self.used = 0.0
        taken: dict[str, list[float]] = defaultdict(list)
        for state in states:
            for step, seconds in state.seconds.items():
                # What a training cost over all its starts; a step is recorded with its last one.
                run = runs[state.job.name] if step == TRAIN else {}
                hours = run["device_hours"] if run else seconds * self.devices / 3600
                self.used += hours
                taken[step].append(hours / share_of(state.job) if step == TRAIN else hours)
        self._mean: Mapping[str, float] = {step: fmean(hours) for step, hours in taken.items()}

    def left(self, states: Iterable[State], stages: State | None = None) -> Left:
        """Of these cells, and of the shared stages, what is not finished."""
        hours = most = 0.0
        unknown, measured = {SHARED} if stages and stages.left else set(), False
        for state in states:
            for step in state.left:
                factor = share_of(state.job) if step.name == TRAIN else 1
                price = self.prices.get(self._tuned(state.job))
                if step.name in self._mean:
                    low = high = self._mean[step.name]
                    measured = True
                elif price and step.name == TRAIN:
                    low, high = price.train, price.recomputed
                elif price and step.name == EVALUATE and self.plan.cost.questions:
                    low = high = price.answers
                else:
                    unknown.add(step.name)
                    continue
                hours += factor * low
                most += factor * high
        return Left(hours, most, unknown, measured)

    def text(self, left: Left) -> str:
        """What is left, in words."""
        if not left.hours:
            of_cells = self.note or "no estimate before the first cell is finished"
            return SHARED if left.unknown == {SHARED} else of_cells if left.unknown else ""
        more = f" ({left.most:,.1f} if all layers are recomputed)" if left.most > 1.01 * left.hours else ""
        said = f"about {left.hours:,.1f} device hours{more}"
        if left.measured and self.devices == 1:
            said = f"about {duration(3600 * left.hours)}"
        elif left.measured:
            said += f", {duration(3600 * left.hours / self.devices)} with {self.devices} devices"
        measured = count(self.cells, "finished cell") if self.cells else "finished steps"
        source = f"from {measured}" if left.measured else f"cost model, {self.plan.cost.device}"
        without = f"; without {', '.join(sorted(left.unknown))}" if left.unknown else ""
        return f"{said} ({source}{without})"

    @cached_property
    def prices(self) -> dict[int | None, Price]:
        """Number of tuned layers -> its price; empty without a cost model, or if every step has been measured."""
        if self.plan.cost is None or self._depth is None or {TRAIN, EVALUATE} <= self._mean.keys():
            return {}
        numbers = {number_tuned(text, self._depth, 0) for text in self.plan.rows.values() if text}
        flags = [filled(word, places(self.plan)) for word in self.plan.cost.flags]
        try:
            # The plan's own flags come last: they may name a folder that has the model's config.json only.
            return price(("--model-path", self.plan.model, *flags), tuple(sorted(numbers)), self.plan.cost.questions)
        except (ValueError, OSError) as error:
            # A model that a shared stage makes, for example.
            self.note = f"the cost model cannot be used: {error}"
            return {}

    def _tuned(self, job: Job) -> int | None:
        selection = self.plan.rows[job.planned.cell.row] if job.planned else None
        return number_tuned(selection, self._depth, job.planned.cell.seed) if selection and self._depth else None


@cache
def price(flags: tuple[str, ...], numbers: tuple[int, ...], questions: int) -> dict[int | None, Price]:
    """What trainings of these numbers of layers cost by the command `plan`; which layers they are changes nothing."""
    from visual_region.commands.plan import price as priced

    parser = Parser(prog="python -m visual_region plan")
    ADD_FLAGS["plan"](parser)
    selections = [word for number in numbers for word in ("--tune-layers", f"sparse-uniform:{number}")]
    args = parser.parse_args([*flags, *selections])
    found = {}
    for number, row in zip(numbers, priced(args)["selections"], strict=True):
        of_sample = row["plain"]["flops_per_sample"]
        forward = (of_sample["forward"] + of_sample["tower"]) * questions
        hours = [row[kind]["device_hours"] for kind in ("plain", "gradient_checkpointing")]
        found[number] = Price(*hours, forward / (args.tflops * 1e12 * args.utilization) / 3600)
    return found


def number_tuned(selection: str, depth: int, seed: int) -> int:
    found = tuned_layers(selection, depth, seed)
    return found if isinstance(found, int) else len(found)


def share_of(job: Job) -> float:
    """The share of the data that a cell trains on, from 0 to 1."""
    return job.planned.cell.share / 100 if job.planned else 1.0


def duration(seconds: float) -> str:
    """ "45 s", "12 min" or "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
