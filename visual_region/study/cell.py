"""A cell of a study: one training with one selection, seed and share of the data, or the model before it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from llava.files import write_json

CELL_FILE = "cell.json"
EXPERIMENTS = ("selections", "depths", "shares", "text", "reversion", "curve", "attention")
"""What a cell can be measured for. selections: Table 1; depths: Tables 2, 3, Figure 3; shares: Figure 2; text: Table 4;
reversion: Figure 1, left; curve: Figure 1, right, and Figure 4; attention: Figure 5."""


@dataclass(frozen=True)
class Cell:
    """What one cell of a study is; `cell.json` in its folder.

    Attributes:
        name: its folder.
        row: the name of its row in tables; cells of one row differ in seed and share only.
        selection: the text of `--tune_layers`, or None for the model before stage 2 (the backbone).
        seed: seed of the training and of the data share.
        share: share of the training data, in percent.
        experiments: the experiments of the plan that use the cell, of `EXPERIMENTS`.
        layers: the decoder layers that were tuned, 0-based; None until the training has resolved the selection.
        depth: number of decoder layers of the model; None until then.
    """

    name: str
    row: str
    selection: str | None
    seed: int
    share: float = 100.0
    experiments: tuple[str, ...] = ()
    layers: tuple[int, ...] | None = None
    depth: int | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Cell":
        """From the values of a `cell.json`; keys that later versions add are ignored."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        layers = known.get("layers")
        known["experiments"] = tuple(known.get("experiments", ()))
        return cls(**known | {"layers": None if layers is None else tuple(layers)})

    @classmethod
    def read(cls, folder: Path) -> "Cell":
        """The cell of a folder; raises `ValueError` for a broken `cell.json`."""
        file = folder / CELL_FILE
        try:
            return cls.of(json.loads(file.read_text(encoding="utf-8")))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{file} does not describe a cell of a study ({error})") from error

    def write(self, folder: Path) -> None:
        write_json(folder / CELL_FILE, asdict(self))
