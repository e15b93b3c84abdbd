"""docs/first_steps.ipynb, executed on a tiny model as a user would execute it."""

import os

import pytest

from tests.conftest import REPOSITORY


def test_first_steps(tiny, tiny_llava, tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="pip install -e '.[dev]'")
    nbformat = pytest.importorskip("nbformat", reason="pip install -e '.[dev]'")
    notebook = nbformat.read(REPOSITORY / "docs/first_steps.ipynb", as_version=4)
    assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code"), "clear the outputs"
    values = {"MODEL": tiny_llava, "DATA": tiny.data, "IMAGES": tiny.images, "OUT": tmp_path / "out"}
    environment = os.environ | {name: str(value) for name, value in values.items()}
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": REPOSITORY / "docs"}})
    client.execute(env=environment)
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "error: " not in said, said
    assert (tmp_path / "out/pruned/config.json").is_file()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3
