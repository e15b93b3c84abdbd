"""Choosing layers: selections, drawn under the scores of a file, their `--tune_layers`, and what they would cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from llava.flags import Parser
from llava.names import spec_labels
from llava.tables import markdown_table
from visual_region.commands.flags import ADD_FLAGS, MODES
from visual_region.commands.plan import describe_assumed, price, quantities
from visual_region.commands.select import jaccard
from visual_region.layers import LayerSelection
from visual_region.page.answering import MISTAKES, PageError
from visual_region.page.drawn import drawn
from visual_region.pictures.choice import draw_choice
from visual_region.pictures.figure import title_of
from visual_region.pictures.stacks import draw_stacks
from visual_region.scores import ScoreFile

TRAININGS = tuple(mode for mode in MODES if mode != "projector")
"""Modes of `plan` that train decoder layers."""
_MOST_SELECTIONS = 12
_MOST_LAYERS = 1000


@dataclass(frozen=True)
class Training:
    """The fields of the cost: a model's folder (its config.json is enough), and flags of `plan`."""

    model: str
    mode: str
    lora_r: float | None
    samples: float | None
    text_tokens: float | None


@dataclass(frozen=True)
class Choice:
    """What the page shows.

    Attributes:
        table: the selections with their overlap, as Markdown.
        flags: `--tune_layers` of each selection, one line each.
        cost: as Markdown; a message if it cannot be computed.
        message: what is wrong with the input; the rest is then empty.
    """

    picture: Image.Image | None = None
    table: str = ""
    flags: str = ""
    cost: str = ""
    message: str = ""


def metrics_of(scores_file: str) -> tuple[list[tuple[str, str]], str]:
    """The metrics of a score file, as titles and names, and a message if it cannot be read."""
    if not (scores_file or "").strip():
        return [], ""
    try:
        names = ScoreFile.read(scores_file.strip()).names
    except MISTAKES as error:
        return [], f"**Error:** {error}"
    return [(f"{title_of(name)} ({name})" if title_of(name) != name else name, name) for name in names], ""


def kept_metric(names: Sequence[str], metric: str | None) -> str | None:
    """The chosen metric, or the first one of a file that lacks it; None if there is none."""
    return metric if metric in names else next(iter(names), None)


def first_specs(metric: str | None) -> str:
    """The selections that the page starts with."""
    scored = [f"#{metric}:25%", f"#{metric}:spread:25%"] if metric else []
    return "\n".join(["sparse-uniform:25%", *scored])


def choose(scores_file: str, metric: str | None, layers: float | None, specs: str, training: Training) -> Choice:
    """The page for these fields.

    Args:
        scores_file: path of a score file, or empty.
        metric: the metric that is drawn.
        layers: the number of layers, used without a score file.
        specs: one selection per line, in the grammar of `--tune_layers`; `#bi:8` means the score file above.
    """
    try:
        scores = ScoreFile.read(scores_file.strip()) if (scores_file or "").strip() else None
        selections = _selections(scores, scores_file, layers, specs)
        labels = spec_labels([selection.spec for selection in selections], drop_single=True)
        picture = (
            drawn(draw_choice, scores, _metric(scores, metric), selections)
            if scores
            else drawn(draw_stacks, selections)
        )
    except MISTAKES as error:
        return Choice(message=f"**Error:** {error}")
    flags = "\n".join(f"--tune_layers {selection.as_list_spec()}" for selection in selections)
    return Choice(picture, _table(selections, labels), flags, cost_of(selections, labels, training))


def cost_of(selections: Sequence[LayerSelection], labels: Sequence[str], training: Training) -> str:
    """What trainings of all layers and of these selections would cost, as Markdown; or why that is not known."""
    if not (training.model or "").strip():
        return "For the cost, name a model: a folder with its `config.json` is enough."
    try:
        plan = price(_plan_arguments(["all", *(s.as_list_spec() for s in selections)], training))
        assumed = plan["assumed"]
        if assumed["num_layers"] != selections[0].num_layers:
            raise PageError(
                f"{training.model} has {assumed['num_layers']} layers, the selections are of {selections[0].num_layers}"
            )
    except MISTAKES as error:
        return f"**Error:** the cost is not known: {error}"
    said = describe_assumed(assumed).replace("\n", "  \n")
    notes = "".join(f"\n\nNote: {note}." for note in assumed["notes"])
    return f"{said}\n\n{markdown_table(['', 'all', *labels], quantities(plan['selections']))}{notes}"


def _selections(scores: ScoreFile | None, scores_file: str, layers: float | None, specs: str) -> list[LayerSelection]:
    lines = [line.strip() for line in (specs or "").splitlines() if line.strip()]
    if not lines:
        raise PageError("type at least one selection, such as sparse-uniform:25%")
    if len(lines) > _MOST_SELECTIONS:
        raise PageError(f"{len(lines)} selections are too many for one picture; give at most {_MOST_SELECTIONS}")
    if scores is None and any(part.startswith("#") for line in lines for part in line.split(",")):
        raise PageError("a selection that begins with # takes layers from the score file; name one")
    if scores is None and (layers is None or not 1 <= layers <= _MOST_LAYERS):
        raise PageError(f"give a score file, or the number of layers, from 1 to {_MOST_LAYERS}")
    depth = scores.num_layers if scores else int(layers)
    return [LayerSelection.parse(_with_file(line, scores_file), depth) for line in lines]


def _with_file(line: str, scores_file: str) -> str:
    parts = (part.strip() for part in line.split(","))
    return ",".join(f"{scores_file.strip()}{part}" if part.startswith("#") else part for part in parts)


def _metric(scores: ScoreFile, metric: str | None) -> str:
    """The metric to draw."""
    if not scores.names:
        raise PageError(f"{scores.path} has no metric")
    metric = kept_metric(scores.names, metric)
    scores.values(metric)
    return metric


def _table(selections: Sequence[LayerSelection], labels: Sequence[str]) -> str:
    rows = []
    for selection, label in zip(selections, labels, strict=True):
        overlap = jaccard(set(selection), set(selections[0]))
        rows.append([label, f"{len(selection)} ({selection.percent:.3g}%)", selection.as_list_spec(), f"{overlap:.2f}"])
    return markdown_table(["selection", "layers", "list", f"overlap with {labels[0]}"], rows)


def _plan_arguments(specs: list[str], training: Training) -> Any:
    parser = Parser(prog="plan")
    ADD_FLAGS["plan"](parser)
    args = parser.parse_args([f"--model-path={training.model.strip()}"])
    args.tune_layers = specs
    args.mode = training.mode
    for name in ("lora_r", "samples", "text_tokens"):
        value = getattr(training, name)
        if value is None:
            raise PageError(f"{name.replace('_', ' ')} is empty; give a whole number from 1 on")
        setattr(args, name, int(value))
    return args
