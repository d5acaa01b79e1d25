"""Damaged studies among good ones, through a whole command."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.utils.output import label_map_path
from tests.robustness.damage import kinds

Outcome = tuple[Counter[str], list[str]]
_GOOD = (1, 2)
_CASE = "BraTS20_Training_{:03d}"
#: what a message may say of a study whose file is sound by itself
_OF_THE_CASE = ("no modality shows anything", "shows nothing once normalised", "the network computes NaN or Inf")


def run_among_good_ones(command: str, bundle: Path, cohort: Path, folder: Path, every: int = 1) -> Outcome:
    """Run ``predict`` or ``evaluate`` on two good studies and one per kind of damage (each ``every``-th kind).

    Args:
        command: the command.
        bundle: a small bundle with weights.
        cohort: phantom cohort of at least two cases.
        folder: where studies and results go.
        every: 1 for all kinds.

    Returns:
        how many studies failed by name, how many good ones are done; and what went wrong, a line each.
    """
    chosen = list(kinds())[::every]
    names = {_CASE.format(100 + number): kind for number, (kind, _) in enumerate(chosen)}
    studies, output = folder / "studies", folder / "out"
    for number in _GOOD:
        shutil.copytree(cohort / _CASE.format(number), studies / _CASE.format(number))
    for case, (_, damage) in zip(names, chosen, strict=True):
        (studies / case).mkdir(parents=True)
        for name in ("flair", "seg"):
            source = cohort / _CASE.format(1) / f"{_CASE.format(1)}_{name}.nii.gz"
            shutil.copy(source, studies / case / f"{case}_{name}.nii.gz")
        damage(studies / case / f"{case}_flair.nii.gz")
    arguments = [command, str(studies), "--bundle", str(bundle), "--trust", "--output", str(output)]
    result = CliRunner().invoke(app, arguments + (["--subsets", "flair"] if command == "evaluate" else []))
    wrong = [] if result.exit_code == 1 else [f"exit code {result.exit_code}: {result.output[-500:]}"]
    if "Traceback" in result.output or not isinstance(result.exception, SystemExit | None):
        wrong.append(f"traceback: {result.exception!r}")
    done, failed = _results(command, output)
    outcomes: Counter[str] = Counter()
    for case, kind in names.items():
        message = failed.get(case, "accepted" if case in done else "not in the results")
        if f"{case}_" in message or any(text in message for text in _OF_THE_CASE):
            outcomes["damaged, refused by name"] += 1
        else:
            wrong.append(f"{kind}: {message}")
        if label_map_path(output, case).exists():
            wrong.append(f"{kind}: a label map was written")
    for case in map(_CASE.format, _GOOD):
        outcomes["good, done"] += case in done
        wrong += [] if case in done else [f"{case}: {failed.get(case, 'lost')}"]
        if command == "predict" and case in done:
            wrong += _moved(studies / case / f"{case}_flair.nii.gz", label_map_path(output, case))
    wrong += [f"left behind: {path.name}" for path in output.rglob(".tmp-*")]
    return outcomes, wrong


def _moved(source: Path, written: Path) -> list[str]:
    same = nib.load(source).affine.tobytes() == nib.load(written).affine.tobytes()
    return [] if same else [f"{written.name}: its affine is not that of {source.name}"]


def _results(command: str, output: Path) -> tuple[set[str], dict[str, str]]:
    """Cases that are done, and what is said of those that failed."""
    if command == "predict":
        table = _rows(output / "predictions.csv")
        failed = {row["case_id"]: row["message"] for row in table if row["status"] != "ok"}
        return {row["case_id"] for row in table} - set(failed), failed
    failed = {row["case_id"]: f"{row['file']}: {row['reason']}" for row in _rows(output / "failures.csv")}
    return {row["case_id"] for row in _rows(output / "metrics.csv")}, failed


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
