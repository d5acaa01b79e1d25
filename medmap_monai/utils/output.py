"""Where results go: one place for the names of output files."""

from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path

PREDICTIONS_NAME = "predictions.csv"


def label_map_path(folder: str | os.PathLike[str], case_id: str) -> Path:
    """The label map that a prediction of ``case_id`` writes into ``folder``."""
    return Path(folder) / f"{case_id}_seg.nii.gz"


def read_predictions(folder: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """The rows of ``predictions.csv`` in ``folder`` by case id; none where there is no such file."""
    path = Path(folder) / PREDICTIONS_NAME
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["case_id"]: dict(row) for row in csv.DictReader(file)}


def finished_cases(folder: str | os.PathLike[str]) -> set[str]:
    """Cases with a label map and its row: a run that was killed between the two does the case again."""
    rows = read_predictions(folder)
    return {case for case, row in rows.items() if row["status"] == "ok" and label_map_path(folder, case).is_file()}


def require_writable(folder: str | os.PathLike[str]) -> Path:
    """Create ``folder`` where needed and prove that files can be written there.

    Raises:
        OSError: names the folder and what to do.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(f"output folder {path} is not writable ({error.strerror or error}); choose another") from error
    return path
