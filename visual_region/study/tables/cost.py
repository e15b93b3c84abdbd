"""The cost table: what the trainings of each row took, from their run.json."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llava.names import count, some
from visual_region.study import statistics
from visual_region.study.board import reference_name
from visual_region.study.results import CellResult
from visual_region.study.samples import Row, rows_of
from visual_region.study.statistics import Estimate
from visual_region.study.tables.page import NONE, Grid, Page, Text
from visual_region.study.tables.scores import interval_text, labels, numbers, row_record


@dataclass(frozen=True)
class Cost:
    """A number of a run.json: its key, heading, and how it is printed."""

    key: str
    title: str
    scale: float
    text: Callable[[float], str]


COSTS = (
    Cost("device_hours", "device hours", 1, lambda value: f"{value:.3g}"),
    Cost("samples_per_second", "samples/s", 1, lambda value: f"{value:.3g}"),
    Cost("tokens_per_second", "tokens/s", 1, lambda value: f"{value:.0f}"),
    Cost("trained_parameters", "trained parameters (M)", 1e-6, lambda value: f"{value:.4g}"),
    Cost("peak_memory_bytes", "peak memory (GB)", 1e-9, lambda value: f"{value:.2f}"),
)
HOURS = COSTS[0]


def cost_page(results: Sequence[CellResult], reference: str | None = None) -> Page | None:
    """The table of all trained cells; None without one."""
    done = [result for result in results if result.run.get("finished")]
    rows = rows_of(done)
    if not rows:
        return None
    name = reference_name(results, reference)
    references = {row.share: row for row in rows if row.name == name}
    rows.sort(key=lambda row: (-row.share, row.name != name, -(row.number or 0)))
    shares = len({row.share for row in rows}) > 1
    blocks: dict[float, list[list[Text]]] = {}
    records = []
    for row in rows:
        found = {cost.key: of_runs(row, cost) for cost in COSTS}
        ratio = None if row.name == name else hours_ratio(row, references.get(row.share))
        texts = [Text(NONE) if found[cost.key] is None else _text(found[cost.key], cost) for cost in COSTS]
        kept = Text("100%" if row.name == name else NONE)
        if ratio is not None:
            percent = ratio.scaled(100)
            kept = Text(f"{percent.value:.1f}%", interval_text(percent))
        line = [*labels(row, shares), Text(str(len(row.cells))), *texts, *([kept] if name else [])]
        blocks.setdefault(row.share, []).append(line)
        for cost in COSTS:
            record = row_record(row) | {"column": cost.key, "title": cost.title}
            record |= numbers("", found[cost.key]) | numbers("ratio", ratio if cost is HOURS else None)
            records.append(record)
    titles = [cost.title for cost in COSTS]
    head = ["", "layers", *(["data"] if shares else []), "seeds", *titles, *([f"hours (% of {name})"] if name else [])]
    caption = "What a training takes: mean over the seeds ± standard deviation over the seeds, killed starts included. "
    if name:
        caption += f"Last column: device hours as a share of those of {name}, paired by seed (95% interval over seeds)."
    notes = _notes(results, done)
    return Page("cost", "Cost of the trainings", [Grid(caption, head, list(blocks.values()))], notes, records)


def of_runs(row: Row, cost: Cost) -> Estimate | None:
    """The mean over the seeds, with an interval over seeds; None if no run has the number."""
    values = [cost.scale * value for result in row.cells.values() if (value := result.run.get(cost.key)) is not None]
    return statistics.of_headlines(values, [None] * len(values), 0) if values else None


def hours_ratio(row: Row, reference: Row | None) -> Estimate | None:
    """Device hours as a share of the reference's with the same seed; None if no seed has both."""
    pairs = [
        (ours.run.get(HOURS.key), reference.cells[seed].run.get(HOURS.key))
        for seed, ours in row.cells.items()
        if reference and seed in reference.cells
    ]
    ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
    return statistics.of_headlines(ratios, [None] * len(ratios), 0) if ratios else None


def _text(found: Estimate, cost: Cost) -> Text:
    # Equal numbers have a standard deviation of rounding.
    varies = found.sd is not None and found.sd > 1e-9 * abs(found.value)
    return Text(cost.text(found.value) + (f" ± {found.sd:.2g}" if varies else ""))


def _notes(results: Sequence[CellResult], done: Sequence[CellResult]) -> list[str]:
    devices = set(map(device_of, done))
    names = {result.cell.name for result in results if result.cell.selection is not None}
    left = sorted(names - {result.cell.name for result in done})
    found = [f"devices: {some(sorted(devices))}"]
    if len(devices) > 1:
        found.append("trainings on different devices are not comparable in time")
    if left:
        found.append(f"not trained yet, or without a run.json: {count(len(left), 'cell')} ({some(left)})")
    return found


def device_of(result: CellResult) -> str:
    """What a cell was trained on, such as "8 x NVIDIA H200"."""
    devices = result.run["devices"]
    return f"{devices.get('number')} x {devices.get('name')}"
