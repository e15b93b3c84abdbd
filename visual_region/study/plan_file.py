"""Reads PLAN.yaml to a `Plan`; all errors are found at once."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from visual_region.study.cell import EXPERIMENTS
from visual_region.study.plan import Cost, Evaluation, Experiment, Plan, Run
from visual_region.study.plan_checks import check_plan
from visual_region.study.yaml_file import (
    PlanError,
    Section,
    environment,
    positive,
    read_yaml,
    several,
    text,
    whole,
    with_changes,
    words,
    yes_or_no,
)

_EXAMPLES = {"command": "bash scripts/train/pretrain.sh", "script": "scripts/train/finetune_lora.sh"}
"""Key of a stage, or of the training -> a value of it."""


def read_plan(file: str | Path, changes: Iterable[str] = (), out: str | None = None) -> Plan:
    """Reads and checks a plan; no weights are read.

    Args:
        changes: of --set: "KEY.KEY=VALUE".
        out: in place of the plan's own `out`.

    Raises:
        PlanError: everything that is wrong in the file, by the path of its key.
    """
    values = with_changes(read_yaml(file), changes)
    if out is not None:
        # As it was typed: YAML would read 010 as a number.
        values["out"] = out
    problems: list[str] = []
    plan = _read(Path(file), values, Section(values, problems))
    problems += check_plan(plan)
    if problems:
        lines = "\n".join(f"- {line}" for line in dict.fromkeys(problems))
        raise PlanError(f"plan {file} cannot be run:\n{lines}")
    return plan


def _read(file: Path, values: Mapping[str, Any], top: Section) -> Plan:
    seeds = top.read("seeds", several(whole), (0,))
    shares = top.read("shares", several(_share), (100.0,))
    evaluate, cost = top.section("evaluate"), top.section("cost")
    flags = evaluate.read("flags", words, ())
    plan = Plan(
        file=file,
        values=values,
        name=top.read("name", text, file.stem),
        out=Path(top.read("out", text, f"checkpoints/studies/{file.stem}")),
        model=top.read("model", text, "", needed=True),
        tower=top.read("tower", text),
        layers=top.read("layers", whole),
        environment=top.read("environment", environment, {}),
        stages={name: _run(section, "command") for name, section in top.each("stages").items()},
        train=_run(top.section("train"), "script"),
        rows=_rows(top),
        scores_of=top.read("scores_of", text),
        experiments={
            name: Experiment(
                section.read("rows", several(text), (), needed=True),
                section.read("seeds", several(whole), seeds),
                section.read("shares", several(_share), (100.0,) if name != "shares" else shares),
            )
            for name, section in _ended(top.each("experiments", EXPERIMENTS, "experiment"))
        },
        evaluate=Evaluation(
            evaluate.read("columns", several(text), ()),
            evaluate.read("text_columns", several(text), ()),
            evaluate.read("questions", environment, {}),
            evaluate.read("environment", environment, {}),
            flags,
            evaluate.read("text_flags", words, flags),
        ),
        score=top.read("score", words),
        reversion=top.read("reversion", words),
        curve=top.read("curve", words),
        attention={name: top.section("attention").read(name, words, ()) for name in top.section("attention").values},
        keep_weights=top.read("keep_weights", yes_or_no, True),
        cost=_cost(cost) if cost.values else None,
    )
    for section in (evaluate, top):
        section.end()
    return plan


def _ended(sections: Mapping[str, Section]) -> Iterable[tuple[str, Section]]:
    for name, section in sections.items():
        yield name, section
        section.end()


def _run(section: Section, key: str) -> Run:
    def some_words(value: Any) -> tuple[str, ...]:
        found = words(value)
        if not found:
            raise ValueError(f"a {key} is needed, such as {_EXAMPLES[key]}, not {value!r}")
        return found

    command = section.read(key, some_words, (), needed=True)
    run = Run(command, section.read("environment", environment, {}), section.read("flags", words, ()))
    section.end()
    return run


def _rows(top: Section) -> dict[str, str | None]:
    section = top.section("rows")
    if not section.values:
        top.wrong("rows", "is missing: a name for each selection, such as 'all: all' and 'top: top:25%'")
    return {str(name): section.read(name, _selection) for name in section.values}


def _selection(value: Any) -> str | None:
    return value if value is None else text(value)


def _cost(section: Section) -> Cost:
    found = Cost(
        section.read("device", text, "", needed=True),
        section.read("flags", words, (), needed=True),
        section.read("questions", whole, 0),
    )
    section.end()
    return found


def _share(value: Any) -> float:
    share = positive(value)
    if share > 100:
        raise ValueError(f"a share is above 0 and at most 100 percent, not {value!r}")
    return float(share)
