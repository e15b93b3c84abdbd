"""The cells of a plan: each training once, however many experiments use it, in the order in which they run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from visual_region.study.cell import EXPERIMENTS, Cell
from visual_region.study.plan import Plan
from visual_region.study.plan_checks import SCORES, SEED, filled, uses_scores
from visual_region.study.results import CELLS, SCORES_FILE
from visual_region.study.yaml_file import PlanError

WHOLE = 100.0


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a plan.

    Attributes:
        needs: the name of the cell whose scores its selection uses.
        gives_scores: whether other cells use its scores.
    """

    cell: Cell
    needs: str | None = None
    gives_scores: bool = False

    @property
    def name(self) -> str:
        return self.cell.name


def cell_folder(plan: Plan, name: str) -> Path:
    return plan.out / CELLS / name


def cells_of(plan: Plan) -> list[PlannedCell]:
    """The cells in the order in which they run: those with scores for others, then by seed, share and row.

    Raises:
        PlanError: two cells would have one folder.
    """
    used: dict[tuple[str, int, float], list[str]] = {}
    for name in EXPERIMENTS:
        for key in _keys(plan, name):
            used.setdefault(key, []).append(name)
    scored = {}
    for row, seed, _ in list(used):
        if uses_scores(plan.rows[row]):
            scored[plan.scores_of, seed, WHOLE] = None
    for key in scored:
        used.setdefault(key, [])
    rows = list(plan.rows)
    order = sorted(used, key=lambda key: (key not in scored, key[1], -key[2], rows.index(key[0])))
    cells = [_planned(plan, key, tuple(used[key]), key in scored) for key in order]
    folders: dict[str, Cell] = {}
    for planned in cells:
        if (other := folders.setdefault(planned.name, planned.cell)) is not planned.cell:
            names = f"{other.row!r} and {planned.cell.row!r}"
            raise PlanError(f"rows: {names} would share the folder {planned.name}; give one of them another name")
    return cells


def cell_name(row: str, seed: int | None, share: float) -> str:
    """The folder of a cell, such as "sparse-uniform-seed0" or "top-seed1-share10"; without a seed the backbone's."""
    slug = re.sub(r"[^a-z0-9.]+", "-", row.lower()).strip("-.") or "row"
    return slug + (f"-seed{seed}" if seed is not None else "") + (f"-share{share:g}" if share != WHOLE else "")


def _keys(plan: Plan, name: str) -> Iterator[tuple[str, int, float]]:
    """Row, seed and share of each cell of an experiment; the backbone has neither seed nor share of its own."""
    if name in plan.experiments:
        experiment = plan.experiments[name]
        for row in experiment.rows:
            trained = plan.rows[row] is not None
            for seed in experiment.seeds if trained else (0,):
                yield from ((row, seed, share) for share in (experiment.shares if trained else (WHOLE,)))


def _planned(plan: Plan, key: tuple[str, int, float], experiments: tuple[str, ...], scored: bool) -> PlannedCell:
    row, seed, share = key
    selection, needs = plan.rows[row], None
    name = cell_name(row, None if selection is None else seed, share)
    if selection is not None:
        if uses_scores(selection):
            needs = cell_name(plan.scores_of, seed, WHOLE)
        places = {SEED: str(seed), SCORES: str(cell_folder(plan, needs or name) / SCORES_FILE)}
        selection = filled(selection, places)
    return PlannedCell(Cell(name, row, selection, seed, share, experiments), needs, scored)
