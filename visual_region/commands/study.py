"""`python -m visual_region study PLAN.yaml`: every cell of a plan, resumable, with tables and figures."""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from llava.files import LOCK, written_whole
from llava.names import close, count, did_you_mean
from llava.outputs import FileKind, OutputError, check_apart, check_files, check_folder
from llava.tables import text_table
from visual_region.study.cell import CELL_FILE
from visual_region.study.cells import PlannedCell, cells_of
from visual_region.study.estimate import Estimate, duration
from visual_region.study.plan import Plan
from visual_region.study.plan_file import read_plan
from visual_region.study.publish import publish, without_working_folder
from visual_region.study.results import CELLS, CellResult, read_results
from visual_region.study.runner import FailedError, Runner
from visual_region.study.state import State, check_settings, has_finished, state_of, steps_left
from visual_region.study.steps import SCORE, Job, job_of, missing_data, stages_job
from visual_region.study.yaml_file import PlanError

TABLES, FIGURES = "tables", "figures"
PLAN_FILE = "plan.yaml"
_HEAD = "# The plan of this study as it ran last.\n"
PLAN = FileKind("the plan of a study", ".yaml", begins=_HEAD.encode())
CELL = FileKind("a cell of a study", keys=frozenset({"row", "selection", "seed"}))


def run(args: argparse.Namespace) -> None:
    plan = read_plan(args.plan, args.set, args.out)
    cells, stages = cells_of(plan), stages_job(plan)
    jobs = {planned.name: job_of(plan, planned) for planned in cells}
    wanted = _wanted(plan, cells, jobs, args)
    if args.draw:
        check_folder(plan.out, "--out")
        draw(plan, cells)
        return
    if args.publish:
        _publish(plan, cells, Path(args.publish))
        return
    check_settings([stages, *jobs.values()], plan.out)
    if args.list:
        print(listing(plan, jobs, wanted, stages))
    elif args.dry_run:
        print("\n".join(commands([stages, *wanted])))
    else:
        _run(plan, cells, jobs, wanted, stages, one=args.cell is not None)


def _run(
    plan: Plan, cells: Sequence[PlannedCell], jobs: Mapping[str, Job], wanted: Sequence[Job], stages: Job, one: bool
) -> None:
    _check_study_folder(plan.out, "--out")
    _write_plan(plan.values, plan.out)
    runner = Runner(plan, jobs, wanted)
    if steps_left(stages) and (lines := _missing_data(plan, wanted)):
        print(
            f"these do not exist; a shared stage must make them, or the study ends after the stages:\n{lines}",
            flush=True,
        )
    runner.run_stages(stages)
    if lines := _missing_data(plan, wanted):
        raise PlanError(f"the plan reads what does not exist (playground/data/eval/README.md):\n{lines}")
    unfinished = [job for job in wanted if steps_left(job)]
    states = [state_of(job) for job in wanted]
    estimate = Estimate(plan, [state_of(job) for job in jobs.values()])
    left = estimate.text(estimate.left(states))
    to_run = f"{len(unfinished)} of {count(len(wanted), 'cell')} to run"
    print(f"{plan.name}: {to_run}{f': {left}' if left else ''}", flush=True)
    failed = None
    try:
        runner.run()
    except FailedError as error:
        failed = error
    if one:
        print(f"the cell is in {wanted[0].folder}; `study {plan.file} --draw` writes tables and figures")
    else:
        draw(plan, cells)
    if failed:
        raise failed


def _missing_data(plan: Plan, wanted: Sequence[Job]) -> str:
    """A line for each file that unfinished cells read and that does not exist."""
    return "\n".join(f"- {file}" for file in missing_data(plan, [job for job in wanted if steps_left(job)]))


def _publish(plan: Plan, cells: Sequence[PlannedCell], folder: Path) -> None:
    check_apart(folder, [plan.out], "--publish")
    _check_study_folder(folder, "--publish")
    results = _found(plan, cells)
    if not _measured(results):
        raise PlanError(f"--publish: nothing is finished in {plan.out}, so there is nothing to copy")
    # With the same paths as the copied settings, so that a study can be continued with this plan.
    _write_plan(without_working_folder(plan.values), folder)
    copied = publish(results, folder)
    print(f"{count(copied, 'result file')} of {count(len(results), 'cell')} copied to {folder}")
    draw(replace(plan, out=folder), cells)


def _check_study_folder(folder: Path, flag: str) -> None:
    """Raises `OutputError` for a folder in which a study would replace files that are not of a study."""
    check_folder(folder, flag)
    check_files({f"{flag}:": (folder / PLAN_FILE, PLAN)})
    # A study writes its plan first. The cells of a published study may have been copied without it.
    if (folder / PLAN_FILE).is_file() or any(map(CELL.recognises, (folder / CELLS).glob(f"*/{CELL_FILE}"))):
        return
    if held := [name for name in (CELLS, TABLES, FIGURES) if _has_files(folder / name)]:
        raise OutputError(
            f"{flag} {folder} holds {' and '.join(held)} but no {PLAN_FILE}, so it is not the folder of a study; "
            f"give another folder, such as {folder / 'study'}"
        )


def _has_files(folder: Path) -> bool:
    """Whether a folder holds files, besides the locks of cells."""
    return any(path.is_file() and path.name != LOCK for path in folder.rglob("*"))


def _write_plan(values: Mapping[str, Any], folder: Path) -> None:
    with written_whole(folder / PLAN_FILE) as aside:
        text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
        aside.write_text(_HEAD + text, encoding="utf-8")


def _wanted(plan: Plan, cells: Sequence[PlannedCell], jobs: Mapping[str, Job], args: argparse.Namespace) -> list[Job]:
    """The cells that were asked for, with the steps of --only; raises `PlanError` for a cell that cannot be run."""
    only = args.only
    if unknown := [name for name in only or () if name not in plan.experiments]:
        raise PlanError(f"--only {' '.join(unknown)}: the plan has the experiments {', '.join(plan.experiments)}")
    chosen = [planned for planned in cells if only is None or set(only) & set(planned.cell.experiments)]
    needed = {planned.needs for planned in chosen}
    chosen = [planned for planned in cells if planned in chosen or planned.name in needed]
    if args.cell is not None:
        names = list(jobs)
        numbered = args.cell.isdecimal() and 1 <= int(args.cell) <= len(names)
        name = names[int(args.cell) - 1] if numbered and args.cell not in names else args.cell
        if name not in names:
            hint = did_you_mean(*close(name, names)) or f"; --list prints the {len(names)} cells of the plan"
            raise PlanError(f"--cell {args.cell}: there is no such cell{hint}")
        chosen = [planned for planned in chosen if planned.name == name]
        if not chosen:
            raise PlanError(f"--cell {name} --only {' '.join(only)}: the cell is not needed")
        needs = chosen[0].needs
        runs = not (args.list or args.dry_run or args.draw or args.publish) and steps_left(jobs[name])
        if needs and runs and not has_finished(jobs[needs].folder, SCORE):
            raise PlanError(f"--cell {name} needs the scores of {needs}, which has none yet: run --cell {needs} first")
    return [job_of(plan, planned, only) for planned in chosen]


def commands(jobs: Sequence[Job]) -> list[str]:
    """The commands of what is left, each below a comment that says what it is of."""
    lines = []
    for job in jobs:
        for step in steps_left(job):
            lines += ["", f"# {job.name}: {step.name}", *(command.shell() for command in step.commands)]
    return lines[1:] or ["# nothing is left"]


def listing(plan: Plan, jobs: Mapping[str, Job], wanted: Sequence[Job], stages: Job) -> str:
    """A line per cell, then the sums."""
    everything = [state_of(job) for job in jobs.values()]
    states = [state_of(job) for job in wanted]
    estimate = Estimate(plan, everything)
    rows = [["", "cell", "state", "steps done", "steps left", "device hours left"]]
    for state in states:
        number = str(list(jobs).index(state.job.name) + 1)
        rows.append([number, state.job.name, *_described(state, estimate)])
    shared = state_of(stages)
    if stages.steps:
        rows.insert(1, ["", "shared stages", *_described(shared, None)])
    words = [state.word for state in states]
    counts = ", ".join(f"{words.count(word)} {word}" for word in ("done", "running", "failed", "left"))
    used = f"device hours used: {estimate.used:,.2f}"
    left = estimate.text(estimate.left(states, shared)) or "nothing"
    lines = [text_table(rows, "><<<<>"), f"{plan.name}: {count(len(states), 'cell')} in {plan.out}: {counts}"]
    lines.append(f"{used}; left: {left}")
    others = sorted({file.parent.name for file in (plan.out / CELLS).glob(f"*/{CELL_FILE}")} - jobs.keys())
    if others:
        found = count(len(others), "cell")
        lines.append(f"{found} in {plan.out} not of this plan, left as they are: {', '.join(others)}")
    return "\n".join(lines)


def _described(state: State, estimate: Estimate | None) -> list[str]:
    done = ", ".join(f"{name} {duration(seconds)}" for name, seconds in state.seconds.items())
    word = f"failed: {state.failed}" if state.word == "failed" else state.word
    left = estimate.left([state]) if estimate else None
    hours = f"{left.hours:,.2f}" if left and left.hours else ""
    return [word, done, ", ".join(step.name for step in state.left), hours]


def draw(plan: Plan, cells: Sequence[PlannedCell]) -> None:
    """Writes tables and figures of what is finished of the plan."""
    results = _found(plan, cells)
    if not _measured(results):
        print(f"nothing is finished in {plan.out}, so there are no tables and figures yet")
        return
    # They import matplotlib, which the other uses of this command do without.
    from visual_region.study.figures import draw_figures
    from visual_region.study.samples import StudyError
    from visual_region.study.sentence import result_sentence
    from visual_region.study.tables import write_tables

    columns = plan.evaluate.columns
    with suppress(StudyError):
        print(result_sentence(results, columns, plan.reference))
    written = write_tables(results, [*columns, *plan.evaluate.text_columns], plan.out / TABLES, plan.reference)
    written += draw_figures(results, columns, plan.out / FIGURES)
    older = {path for folder in (TABLES, FIGURES) for path in (plan.out / folder).iterdir()} - set(written)
    if older:
        names = ", ".join(sorted(map(str, older)))
        print(f"from an earlier run, not written now and left as they are: {names}")
    unfinished = sum(not result.finished for result in results) + len(cells) - len(results)
    missing = f"; {count(unfinished, 'cell')} of {len(cells)} not finished" if unfinished else ""
    print(f"{count(len(written), 'file')} in {plan.out / TABLES} and {plan.out / FIGURES}{missing}")


def _found(plan: Plan, cells: Sequence[PlannedCell]) -> list[CellResult]:
    """The cells of the plan that are in its folder."""
    planned = {one.name: one for one in cells}
    results = []
    for found in read_results(plan.out):
        # A copy of a cell's folder has another name. The plan may have changed since the cell was run last.
        if one := planned.get(found.folder.name):
            cell = replace(found.cell, row=one.cell.row, experiments=one.cell.experiments)
            results.append(replace(found, cell=cell, finished=not steps_left(job_of(plan, one))))
    return results


def _measured(results: Sequence[CellResult]) -> bool:
    return any(result.reports or result.run for result in results)
