"""Which cohorts are synthetic: those that say so themselves, in a file that whatever made them left there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmap_monai.utils.files import write_text
from medmap_monai.utils.json_file import read_own_record

#: file in the folder of a cohort
MARKER_FILE = "dataset.json"
_ABOVE = 4  # <cohort>/HGG/<case>/<file>


def write_synthetic_marker(folder: str | os.PathLike[str], name: str, details: Mapping[str, Any] | None = None) -> Path:
    """Mark ``folder`` as a synthetic cohort, so that results on it cannot pass for clinical ones by accident.

    Args:
        folder: the cohort's folder.
        name: what the data are, for headings.
        details: further JSON values, such as how the cohort was made.
    """
    path = Path(folder) / MARKER_FILE
    write_text(path, json.dumps({"name": name, "synthetic": True, **(details or {})}, indent=1) + "\n")
    return path


def is_synthetic(path: str | os.PathLike[str]) -> bool:
    """Whether ``path``, a cohort or any file or folder of one, belongs to a synthetic cohort."""
    return bool(cohort_marker(path).get("synthetic"))


def cohort_marker(path: str | os.PathLike[str]) -> dict[str, Any]:
    """``name`` and ``synthetic`` of the cohort that ``path`` belongs to; empty where no folder above says anything."""
    start = Path(os.path.abspath(path))
    for folder in [start, *list(start.parents)[:_ABOVE]]:
        content = read_own_record(folder / MARKER_FILE)
        if content is not None and "synthetic" in content:
            return {"name": str(content.get("name", "")), "synthetic": content["synthetic"] is True}
    return {}
