"""Runs that are killed at seeded moments: what they leave is whole, and starting again completes them."""

from __future__ import annotations

import contextlib
import gzip
import json
import multiprocessing
import os
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medmap_monai.cli.main import app
from medmap_monai.data.nifti_file import read_nifti
from medmap_monai.utils.bundle_workflow import open_workflow
from medmap_monai.utils.output import PREDICTIONS_NAME, read_predictions
from tests.robustness.studies import Outcome

Run = Callable[[Path], object]
_LIMIT = 600.0  # seconds; a run that hangs is a failure
_TRAINING = {"epochs": 4, "val_interval": 2, "batch_size": 2}


def killed_runs(run: Run, result: Callable[[Path], Any], folder: Path, moments: int, seed: int = 0) -> Outcome:
    """Kill ``run`` with SIGKILL at seeded moments of its course, look at what is there, and run it again.

    Args:
        run: does its work in the folder that it is given.
        result: what of that folder must be the same as without a kill.
        folder: an empty folder to work in.
        moments: how many.
        seed: of the moments.

    Returns:
        how many runs were killed and completed; and what went wrong, a line each.
    """
    outcomes: Counter[str] = Counter()
    seconds, code = _forked(run, folder / "whole", None)
    if code != 0:
        return outcomes, [f"a run that nobody kills ends with {code}"]
    expected = result(folder / "whole")
    wrong: list[str] = []
    for number, share in enumerate(np.random.default_rng(seed).uniform(0.02, 0.95, moments)):
        place = folder / f"killed_{number}"
        _, code = _forked(run, place, share * seconds)
        told = f"killed at {share:.0%}"
        outcomes["killed" if code == -9 else "done before the kill"] += 1
        wrong += [f"{told}: {fault}" for fault in _half_files(place)]
        _, code = _forked(run, place, None)
        faults = [] if code == 0 else [f"started again it ends with {code}"]
        faults += [] if code or result(place) == expected else ["the result is another one"]
        faults += [f"left behind: {path.relative_to(place)}" for path in place.rglob(".tmp-*")]
        outcomes["completed by starting again"] += not faults
        wrong += [f"{told}: {fault}" for fault in faults]
        shutil.rmtree(place)
    return outcomes, wrong


def _forked(run: Run, place: Path, kill_after: float | None) -> tuple[float, int | None]:
    """Run in a process of its own, which has every module already; seconds that it took, and its exit code."""
    place.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_quiet, args=(run, place))
    start = time.perf_counter()
    process.start()
    process.join(_LIMIT if kill_after is None else kill_after)
    if process.is_alive():
        process.kill()
        process.join()
    return time.perf_counter() - start, process.exitcode


def _quiet(run: Run, place: Path) -> None:
    with (
        (place.parent / "output.txt").open("w") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            run(place)
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 99
    os._exit(code)  # nothing of the parent's is to be tidied up


def _half_files(place: Path) -> list[str]:
    """Files under their final name that are not whole."""
    faults = []
    for path in sorted(p for p in place.rglob("*") if p.is_file()):
        if any(part.startswith(".tmp-") for part in path.relative_to(place).parts):
            continue
        try:
            _require_whole(path)
        except Exception as error:
            faults.append(f"{path.relative_to(place)} is not whole: {error}")
    return faults


def _require_whole(path: Path) -> None:
    if path.name.endswith(".nii.gz"):
        read_nifti(path)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".pt":
        torch.load(path, weights_only=True)
    elif path.name == PREDICTIONS_NAME:
        read_predictions(path.parent)  # rows are added; half a row is dropped by readers
    elif path.suffix == ".csv" and not path.read_bytes().endswith(b"\n"):
        raise ValueError("its last line has no end")


def predict_run(bundle: Path, cohort: Path) -> tuple[Run, Callable[[Path], Any]]:
    """``medmap predict`` of a cohort, and the label maps that it writes."""

    def result(place: Path) -> dict[str, Any]:
        maps = {p.name: gzip.decompress(p.read_bytes()) for p in place.glob("*_seg.nii.gz")}
        return {**maps, "rows": {case: row["status"] for case, row in read_predictions(place).items()}}

    return lambda place: app(["predict", str(cohort), "-b", str(bundle), "--trust", "-o", str(place)]), result


def evaluate_run(bundle: Path, cohort: Path) -> tuple[Run, Callable[[Path], Any]]:
    """``medmap evaluate`` of a cohort, and its tables."""

    def result(place: Path) -> dict[str, bytes]:
        return {name: (place / name).read_bytes() for name in ("metrics.csv", "summary.json")}

    evaluate = ["evaluate", str(cohort), "-b", str(bundle), "--trust", "--subsets", "flair,t1+t2,flair+t1ce+t1+t2"]
    return lambda place: app([*evaluate, "-o", str(place)]), result


def train_run(bundle: Path, cohort: Path) -> tuple[Run, Callable[[Path], Any]]:
    """A training of a few epochs, and its weights."""

    def run(place: Path) -> None:
        folders = {"ckpt_dir": str(place / "models"), "output_dir": str(place / "runs"), "dataset_dir": str(cohort)}
        open_workflow(bundle, "train", ["phantom"], {**folders, **_TRAINING}, workflow_type="train").run()

    def result(place: Path) -> dict[str, Any]:
        state = torch.load(place / "models" / "model.pt", weights_only=True)
        rows = (place / "runs" / "training.csv").read_text().splitlines()
        return {**{name: value.numpy().tobytes() for name, value in state.items()}, "epochs": len(rows)}

    return run, result


def install_run(zoo: Path, name: str) -> tuple[Run, Callable[[Path], Any]]:
    """``medmap bundle install`` from a folder, and the files that it installs."""

    def result(place: Path) -> dict[str, bytes]:
        return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}

    install = ["bundle", "install", name, "--from", str(zoo), "--replace"]
    return lambda place: app([*install, "--to", str(place)]), result
