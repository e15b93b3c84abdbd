"""What can be wrong in a plan beyond its form: names, selections, scripts and flags."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from llava.eval.answering.errors import EvaluationError
from llava.eval.benchmarks import BY_NAME
from llava.eval.suite.program_flags import check_program_flags
from llava.flags import Parser
from llava.names import close, did_you_mean
from visual_region.commands.flags import ADD_FLAGS
from visual_region.layers import LayerSelection, LayerSelectionError, ScoreQuery, layer_count
from visual_region.study.plan import Plan
from visual_region.study.yaml_file import unknown

SEED, SCORES = "seed", "scores"
"""Placeholders of a selection."""
PLACES = ("out", "stages", "features")
"""Placeholders of environments and flags: folders of the study."""
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
_OWN = {"MODEL": "model", "TOWER": "tower"}
"""Variables that have a key of their own in the plan."""
_PER_CELL = ("OUTPUT", "TUNE_LAYERS", "NAME", "RESULT")
"""Variables that differ from cell to cell."""
_SET_BY_STUDY = {
    "score": ("--model-path", "--backbone", "--output"),
    "reversion": ("--model-path", "--backbone", "--output"),
    "curve": ("--model-path", "--scores", "--output"),
    "attention": ("--model-path", "--metrics", "--output"),
    "cost": ("--tune-layers", "--output"),
}
"""Flags that the study gives itself, by the key of the plan."""
COMMAND_OF = {"score": "score", "reversion": "perplexity", "curve": "curve", "attention": "score", "cost": "plan"}
"""The command of `python -m visual_region` whose flags a key of the plan holds."""


def check_plan(plan: Plan) -> list[str]:
    """Every error, each with the path of its key."""
    return [*_names(plan), *_selections(plan), *_commands(plan), *_measures(plan), *_columns(plan)]


def filled(value: str, places: Mapping[str, str]) -> str:
    """The text with each placeholder replaced; other braces stay."""
    return _PLACEHOLDER.sub(lambda match: places.get(match[1], match[0]), value)


def uses_scores(selection: str | None) -> bool:
    return selection is not None and f"{{{SCORES}}}" in selection


def tuned_layers(selection: str, depth: int, seed: int = 0) -> LayerSelection | int:
    """The layers of a selection without {scores}; else how many there are. Raises `LayerSelectionError`."""
    spec = filled(selection, {SEED: str(seed)})
    if not uses_scores(spec):
        return LayerSelection.parse(spec, depth)
    total = 0
    for part in spec.split(","):
        query = _query(part) if uses_scores(part) else None
        total += layer_count(query.amount, depth) if query else len(LayerSelection.parse(part, depth))
    return min(total, depth)


def _query(part: str) -> ScoreQuery:
    from visual_region.importance import METRICS

    query = ScoreQuery.parse(part.strip())
    if query.metric not in METRICS:
        raise LayerSelectionError(unknown("metric", query.metric, list(METRICS)))
    return query


def _names(plan: Plan) -> Iterator[str]:
    missing = {
        "text": ("evaluate.text_columns", not plan.evaluate.text_columns),
        "reversion": ("reversion", plan.reversion is None),
        "curve": ("curve", plan.curve is None),
        "attention": ("attention", not plan.attention),
    }
    missing |= dict.fromkeys(("selections", "depths", "shares"), ("evaluate.columns", not plan.evaluate.columns))
    for name, experiment in plan.experiments.items():
        for row in experiment.rows:
            path = f"experiments.{name}.rows"
            if row not in plan.rows:
                yield f"{path}: {unknown('row', row, list(plan.rows))}"
            elif plan.rows[row] is None and name != "text":
                yield f"{path}: {row!r} is the model before training, which has a place in the experiment 'text' only"
        key, lacks = missing[name]
        if lacks:
            yield f"{key}: is missing; the experiment {name!r} needs it"
        if name == "curve" and plan.score is None:
            yield "score: is missing; the curve removes the layers with the lowest scores"
    if not plan.experiments:
        yield "experiments: is missing; which rows are compared, such as 'selections: {rows: [all, top]}'"
    for key, names in (("stages", plan.stages), ("attention", plan.attention)):
        yield from (f"{key}.{name}: files are named after it, so it cannot hold a /" for name in names if "/" in name)
    with_scores = [row for row, selection in plan.rows.items() if uses_scores(selection)]
    if plan.scores_of is not None and plan.scores_of not in plan.rows:
        yield f"scores_of: {unknown('row', plan.scores_of, list(plan.rows))}"
    elif plan.scores_of is not None and (uses_scores(plan.rows[plan.scores_of]) or plan.rows[plan.scores_of] is None):
        yield f"scores_of: the row {plan.scores_of!r} cannot be scored before it is trained"
    if with_scores and plan.scores_of is None:
        yield f"scores_of: is missing; which row's scores the row {with_scores[0]!r} uses, usually those of all layers"
    if with_scores and plan.score is None:
        yield f"score: is missing; flags of the command score, for the scores that the row {with_scores[0]!r} uses"
    if with_scores and "," in str(plan.out):
        yield f"out: a comma in {plan.out} would end the name of a score file in a selection"


def _selections(plan: Plan) -> Iterator[str]:
    depth, same = None, {}
    try:
        depth = depth_of(plan)
    except ValueError as error:
        yield f"model: {error}"
    for row, selection in plan.rows.items():
        if selection is None:
            continue
        path = f"rows.{row}"
        if wrong := [f"{path}: {line}" for line in _placeholders(selection, (SEED, SCORES))]:
            yield from wrong
            continue
        key: object = selection
        if depth:
            try:
                found = tuned_layers(selection, depth)
                if not uses_scores(selection) and f"{{{SEED}}}" not in selection:
                    key = tuple(found)
            except LayerSelectionError as error:
                yield f"{path}: {error}"
                continue
        if key in same:
            yield f"{path}: tunes what {same[key]!r} tunes; one row can be in several experiments"
        same.setdefault(key, row)


def depth_of(plan: Plan) -> int | None:
    """The number of decoder layers of the model; None if neither the plan nor a local config.json tells it."""
    if plan.layers or not plan.model or not Path(plan.model).is_dir():
        return plan.layers
    from llava.checkpoint.folder import open_checkpoint

    return open_checkpoint(plan.model, flag="model", weights=False, with_base=False).depth


def _placeholders(value: str, known: Sequence[str]) -> Iterator[str]:
    for name in _PLACEHOLDER.findall(value):
        if name not in known:
            yield unknown("placeholder", f"{{{name}}}", [f"{{{one}}}" for one in known])


def _commands(plan: Plan) -> Iterator[str]:
    runs = {f"stages.{name}": run for name, run in plan.stages.items()} | {"train": plan.train}
    for path, run in runs.items():
        script = run.words[1:2] if run.words[:1] == ("bash",) else run.words[:1] if path == "train" else ()
        for file in script:
            if not Path(file).is_file():
                key = "script" if path == "train" else "command"
                yield f"{path}.{key}: there is no {file} in {Path.cwd()}; run the study where scripts/ is"
        if path == "train" and run.words[:1] == ("bash",):
            yield "train.script: the study starts it with bash itself; leave out the word bash"
        allowed = ("OUTPUT",) if path != "train" else ()
        yield from _environment(f"{path}.environment", run.environment, allowed)
        yield from (f"{path}.flags: {line}" for word in run.flags for line in _placeholders(word, PLACES))
    yield from _environment("environment", plan.environment)
    yield from _environment("evaluate.environment", plan.evaluate.environment)
    seeds = [word for word in plan.train.flags if word.partition("=")[0] in ("--seed", "--data_share", "--data_seed")]
    yield from (f"train.flags: {word} is given by the study: it has the keys seeds and shares" for word in seeds)


def _environment(path: str, variables: Mapping[str, str], allowed: Iterable[str] = ()) -> Iterator[str]:
    for name, value in variables.items():
        if name in _OWN:
            yield f"{path}.{name}: the plan has the key {_OWN[name]!r} for it"
        elif name in _PER_CELL and name not in allowed:
            yield f"{path}.{name}: the study gives each cell its own"
        yield from (f"{path}.{name}: {line}" for line in _placeholders(value, PLACES))


def _measures(plan: Plan) -> Iterator[str]:
    given = {key: getattr(plan, key) for key in ("score", "reversion", "curve")}
    given = {key: (key, flags) for key, flags in given.items() if flags is not None}
    given |= {f"attention.{name}": ("attention", flags) for name, flags in plan.attention.items()}
    if plan.cost:
        given["cost.flags"] = ("cost", plan.cost.flags)
        if not any(word.partition("=")[0] == "--tflops" for word in plan.cost.flags):
            yield "cost.flags: --tflops is missing: the peak of one device, such as 312"
    for path, (key, flags) in given.items():
        yield from (f"{path}: {line}" for word in flags for line in _placeholders(word, PLACES))
        yield from (f"{path}: {line}" for line in _wrong_flags(key, flags))


def _wrong_flags(key: str, flags: Sequence[str]) -> Iterator[str]:
    """What the command would refuse of flags, and what the study gives it itself."""
    command = COMMAND_OF[key]
    parser = Parser(prog=f"python -m visual_region {command}", add_help=False, allow_abbrev=False)
    ADD_FLAGS[command](parser)
    for flag in _SET_BY_STUDY[key]:
        if any(word.partition("=")[0] == flag for word in flags):
            yield f"{flag} is given by the study"

    def refuse(message: str) -> None:
        raise ValueError(message)

    parser.error = refuse
    try:
        for flag in parser.known(flags)[1]:
            yield f"{flag} is no flag of the command {command}{did_you_mean(*close(flag, parser.options))}"
    except ValueError as error:
        yield f"{error} (the command {command})"


def _columns(plan: Plan) -> Iterator[str]:
    evaluate = plan.evaluate
    for columns, flags in (("columns", "flags"), ("text_columns", "text_flags")):
        benchmarks = []
        for column in getattr(evaluate, columns):
            name = column.partition("/")[0]
            if name in BY_NAME:
                benchmarks.append(BY_NAME[name])
                if BY_NAME[name].text != (columns == "text_columns"):
                    kind, key = ("text", "text_columns") if BY_NAME[name].text else ("images", "columns")
                    yield f"evaluate.{columns}: {column} is a benchmark of {kind}; its place is evaluate.{key}"
            else:
                yield f"evaluate.{columns}: {unknown('benchmark', name, list(BY_NAME))}"
        for word in getattr(evaluate, flags):
            yield from (f"evaluate.{flags}: {line}" for line in _placeholders(word, PLACES))
        try:
            check_program_flags(list(dict.fromkeys(benchmarks)), getattr(evaluate, flags))
        except EvaluationError as error:
            yield f"evaluate.{flags}: {error}"
    for name in evaluate.questions:
        if name not in BY_NAME:
            yield f"evaluate.questions.{name}: {unknown('benchmark', name, list(BY_NAME))}"
