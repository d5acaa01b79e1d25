"""The notebooks run from the first cell to the last, and are stored without output."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"use_it_on_a_study", "in_your_own_training"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = nbformat.read(path, as_version=4)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "store it without output"
    for name, value in {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "TMPDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    repository = str(FOLDER.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([repository, os.environ.get("PYTHONPATH", "")]))
    client = NotebookClient(content, timeout=600, kernel_name="python3", resources={"metadata": {"path": FOLDER}})
    client.execute()  # raises what a cell raises
    assert all(cell.execution_count for cell in code)
