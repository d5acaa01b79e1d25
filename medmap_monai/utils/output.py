"""Where results go: one place for the names of output files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PREDICTIONS_NAME = "predictions.csv"


def label_map_path(folder: str | os.PathLike[str], case_id: str) -> Path:
    """The label map that a prediction of ``case_id`` writes into ``folder``."""
    return Path(folder) / f"{case_id}_seg.nii.gz"


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
