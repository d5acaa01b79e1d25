"""An evaluation as the report reads it from its folder."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from medmap_monai.engines.results_store import (
    FAILURES_FILE,
    MAPS_FOLDER,
    METRICS_FILE,
    SUMMARY_FILE,
    origin_path,
    read_metrics,
)
from medmap_monai.modalities import Modalities
from medmap_monai.utils.json_file import read_json, read_own_record

TRAINING_FILE = "training.csv"
BALANCE_FILE = "balance.csv"
FEATURES_FILE = "features.npz"


class RunError(ValueError):
    """A folder that holds no finished evaluation, or evaluations that cannot stand side by side."""


@dataclass(frozen=True)
class EvaluationRun:
    """One evaluation.

    name: heading of the run in the report.
    folder: its folder.
    summary: content of ``summary.json``.
    table: ``metrics.csv``; NaN values are cases that the edge-case policy excludes.
    failures: rows of ``failures.csv``.
    logs: folders that are searched for training curves and features.
    """

    name: str
    folder: Path
    summary: Mapping[str, Any]
    table: pd.DataFrame
    failures: Sequence[Mapping[str, str]]
    logs: tuple[Path, ...]

    @property
    def modalities(self) -> Modalities:
        """Modalities in channel order."""
        return Modalities(tuple(self.summary["modalities"]))

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions in the order of the tables."""
        return tuple(self.summary["regions"])

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics in the order of the tables."""
        return tuple(self.summary["metrics"])

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the evaluated subsets in the order of their ids."""
        return tuple(self.summary["subsets"])

    @property
    def synthetic(self) -> bool:
        """Whether the data were synthetic."""
        return bool(self.summary["synthetic"])

    def score(self, metric: str, region: str, subset: str) -> Mapping[str, Any] | None:
        """The summary's entry of one cell; None where it was not evaluated."""
        return self._scores.get((metric, region, subset))

    def means(self, metric: str, region: str) -> dict[str, float]:
        """Subset -> mean over cases, where there is one."""
        entries = {subset: self.score(metric, region, subset) for subset in self.subsets}
        return {s: float(e["mean"]) for s, e in entries.items() if e is not None and e["mean"] is not None}

    def average(self, metric: str, region: str) -> Mapping[str, Any] | None:
        """The summary's entry of the mean over subsets."""
        for entry in self.summary["averages"]:
            if entry["metric"] == metric and entry["region"] == region:
                return dict(entry)
        return None

    def maps(self) -> list[Path]:
        """Files of kept label maps."""
        return sorted((self.folder / MAPS_FOLDER).glob("*.npz"))

    def log(self, name: str) -> Path | None:
        """The first file of that name in the folders of the run."""
        return next((folder / name for folder in self.logs if (folder / name).is_file()), None)

    @cached_property
    def references(self) -> dict[str, str]:
        """Case -> SHA-256 of the label file that it was compared with, where that is known."""
        found = {}
        for case_id in map(str, self.table["case_id"].unique()):
            label = (read_own_record(origin_path(self.folder, case_id)) or {}).get("files", {}).get("label") or {}
            if label.get("sha256"):
                found[case_id] = str(label["sha256"])
        return found

    @cached_property
    def _scores(self) -> dict[tuple[str, str, str], Mapping[str, Any]]:
        return {(e["metric"], e["region"], e["subset"]): e for e in self.summary["scores"]}


def read_run(
    folder: str | os.PathLike[str], name: str | None = None, logs: str | os.PathLike[str] | None = None
) -> EvaluationRun:
    """Read an evaluation folder.

    Args:
        folder: what ``medmap evaluate`` wrote.
        name: heading; default is the name of the folder.
        logs: a further folder that may hold ``training.csv``, ``balance.csv`` and ``features.npz``.

    Raises:
        RunError: the folder does not exist, or its evaluation is not finished.
    """
    path = Path(folder)
    if not path.is_dir():
        raise RunError(f"{path} is not a folder")
    try:
        summary = read_json(path / SUMMARY_FILE)
        table = read_metrics(path / METRICS_FILE)
    except FileNotFoundError as error:
        raise RunError(
            f"{path} holds no finished evaluation ({Path(str(error.filename)).name} is missing); "
            "run medmap evaluate to its end, or merge its shards with --merge"
        ) from None
    except ValueError as error:
        raise RunError(f"the evaluation in {path} is damaged: {error}; run medmap evaluate again") from error
    if not isinstance(summary, dict) or summary.get("format") != 1:
        raise RunError(f"{path / SUMMARY_FILE} is not a summary of format 1")
    failures: list[dict[str, str]] = []
    if (path / FAILURES_FILE).is_file():
        with (path / FAILURES_FILE).open(newline="", encoding="utf-8") as file:
            failures = list(csv.DictReader(file))
    folders = (path,) if logs is None else (path, Path(logs))
    return EvaluationRun(name or path.resolve().name, path, summary, table, failures, folders)


def check_comparable(runs: Sequence[EvaluationRun]) -> None:
    """RunError unless the runs have the same modalities, regions, subsets and scores of empty regions, and different
    names."""
    names = [run.name for run in runs]
    if len(set(names)) != len(names):
        raise RunError(f"the runs need different names, got {names}; name them with --name")
    first = runs[0]
    for run in runs[1:]:
        for what in ("modalities", "regions", "subsets"):
            one, other = tuple(getattr(first, what)), tuple(getattr(run, what))
            if one != other:
                raise RunError(
                    f"{first.name} and {run.name} cannot be compared: {what} are {list(one)} and {list(other)}"
                )
        for what in ("regions", "edge_cases"):  # of the same name, and defined otherwise
            mine: Mapping[str, Any] = first.summary.get(what) or {}
            its: Mapping[str, Any] = run.summary.get(what) or {}
            unlike = sorted(key for key in {*mine, *its} if mine.get(key) != its.get(key))
            if unlike:
                key = unlike[0]
                raise RunError(
                    f"{first.name} and {run.name} cannot be compared: {what.replace('_', ' ')}: {key} is "
                    f"{mine.get(key)} and {its.get(key)}; evaluate one of them again with the other's setting"
                )


def unlike_references(runs: Sequence[EvaluationRun]) -> list[str]:
    """Case ids that several runs have and that stand for different label files; sorted."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for case_id, sha256 in run.references.items():
            found.setdefault(case_id, set()).add(sha256)
    return sorted(case_id for case_id, hashes in found.items() if len(hashes) > 1)
