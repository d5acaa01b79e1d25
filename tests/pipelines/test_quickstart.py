"""What ``make demo`` runs, with one epoch and few cases."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_first_five_minutes import commands

REPOSITORY = Path(__file__).resolve().parents[2]


def predicted(folder: Path) -> tuple[str, str]:
    """Status and sequences of the one study of a table of predictions."""
    with (folder / "predictions.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    return row["status"], row["modalities_used"]


@pytest.mark.parametrize(("task", "subsets", "kept"), [("brats", 15, "flair+t1ce"), ("myops", 7, "bssfp+t2")])
def test_quickstart(
    task: str, subsets: int, kept: str, tmp_path: Path, run_command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    script = ["python", str(REPOSITORY / "pipelines/quickstart.py"), "--task", task, "--output", "demo"]
    done = run_command(*script, "--epochs", "1", "--train-cases", "10", "--test-cases", "2", cwd=tmp_path)
    demo = tmp_path / "demo"
    for line in done.stdout.splitlines()[-6:]:
        assert (tmp_path / line.split()[-1]).exists(), line
    assert predicted(demo / "predictions") == ("ok", kept)
    if task == "brats":  # the heart has no weights that come with the package
        assert predicted(demo / "starter") == ("ok", "flair+t2")
        typed = done.stdout.replace(f"{demo}/", "")
        for command in commands("Segment a study"):
            assert f"$ {command}\n" in typed, "docs/first-five-minutes.md shows what is run here"
        assert "with starter     demo/starter/BraTS20_Training_001/report.html" in done.stdout
    summary = json.loads((demo / "evaluation/summary.json").read_text())
    assert summary["synthetic"] is True
    assert len({score["subset"] for score in summary["scores"]} - {"mean"}) >= subsets
    assert (demo / "report.html").stat().st_size < 20e6
    assert "synthetic" in (demo / "report.html").read_text().lower()
