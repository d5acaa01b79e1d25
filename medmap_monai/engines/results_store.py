"""Results of an evaluation on disk: one file per finished case, so that nothing is lost and nothing is mixed."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from medmap_monai.metrics.region_scores import RegionScore
from medmap_monai.utils.counted import are, counted
from medmap_monai.utils.csv_cells import plain_cell, quoted_row
from medmap_monai.utils.files import remove_stale, write_text
from medmap_monai.utils.json_file import read_json, read_own_record

METRICS_FILE = "metrics.csv"
SUMMARY_FILE = "summary.json"
FAILURES_FILE = "failures.csv"
SETTINGS_FILE = "settings.json"
CASES_FOLDER = "cases"
MAPS_FOLDER = "maps"
ORIGINS_FOLDER = "origins"
METRICS_COLUMNS = (
    "case_id",
    "present",
    "subset_id",
    "subset",
    "modalities",
    "region",
    "metric",
    "value",
    "unit",
    "empty",
    "fold",
)
FAILURES_COLUMNS = ("case_id", "file", "reason")


class StaleResultsError(RuntimeError):
    """The output folder holds results of another checkpoint, protocol or setting."""


class ResultsStore:
    """The output folder of one evaluation.

    ``settings.json`` says what the numbers belong to and is written first; ``cases/<case>.csv`` and
    ``cases/<case>.failed.csv`` appear as cases finish, each atomically; :meth:`merge` joins them into ``metrics.csv``
    and ``failures.csv`` in the order of the case ids, so the files do not depend on restarts, shards or speed.

    Args:
        folder: output folder, created when needed.
        settings: everything that changes the numbers (JSON values).

    Raises:
        StaleResultsError: when the folder belongs to other settings; the message names what differs.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(settings))
        for place in (self.folder, *(self.folder / name for name in (CASES_FOLDER, MAPS_FOLDER, ORIGINS_FOLDER))):
            remove_stale(place)
        path = self.folder / SETTINGS_FILE
        if path.is_file():
            self._refuse_other(path)
        else:
            write_text(path, json.dumps(self.settings, indent=2) + "\n")

    def _refuse_other(self, path: Path) -> None:
        try:
            found = read_json(path, remedy="choose another output folder")
        except ValueError as error:
            raise StaleResultsError(str(error)) from None
        if found == self.settings:
            return
        differences = _differences(found, self.settings)
        raise StaleResultsError(
            f"{self.folder} holds results of another evaluation: "
            + "; ".join(f"{key} was {_short(old)}, is now {_short(new)}" for key, old, new in differences)
            + ". Choose another output folder, or delete this one to start over."
        )

    def case_path(self, case_id: str) -> Path:
        """Where the rows of a finished case lie."""
        return self.folder / CASES_FOLDER / f"{_file_name(case_id)}.csv"

    def failure_path(self, case_id: str) -> Path:
        """Where the reason lies why a case could not be evaluated."""
        return self.folder / CASES_FOLDER / f"{_file_name(case_id)}.failed.csv"

    def maps_path(self, case_id: str) -> Path:
        """Where the label maps of a case lie, when they are kept."""
        return self.folder / MAPS_FOLDER / f"{_file_name(case_id)}.npz"

    def origin_path(self, case_id: str) -> Path:
        """Where it is written what the rows of a finished case were computed from."""
        return origin_path(self.folder, case_id)

    def read_origin(self, case_id: str) -> dict[str, Any]:
        """What :meth:`write_origin` wrote; empty where that cannot be read."""
        return read_own_record(self.origin_path(case_id)) or {}

    def write_origin(self, case_id: str, origin: Mapping[str, Any]) -> None:
        """Write down what the case is computed from: files with their hashes, preprocessing."""
        write_text(self.origin_path(case_id), json.dumps(origin, indent=1) + "\n")

    def forget(self, case_id: str) -> None:
        """Drop the rows of a case whose files have changed since."""
        for path in (self.case_path(case_id), self.maps_path(case_id), self.origin_path(case_id)):
            path.unlink(missing_ok=True)

    def finished(self, case_id: str) -> bool:
        """Whether the case has been evaluated."""
        return self.case_path(case_id).is_file()

    def failed(self, case_id: str) -> bool:
        """Whether the case was tried and could not be evaluated."""
        return self.failure_path(case_id).is_file() and not self.finished(case_id)

    def write_case(
        self, case_id: str, present: str, scores: Iterable[tuple[int, str, int, RegionScore]], fold: str = "unknown"
    ) -> None:
        """Store a finished case.

        Args:
            case_id: the case.
            present: its modalities, as a subset name.
            scores: (subset id, subset name, number of modalities, score) in the order of the table.
            fold: whether the weights have seen the case.
        """
        rows = (
            (case_id, present, number, name, count, s.region, s.metric, f"{s.value:.6f}", s.unit, s.empty, fold)
            for number, name, count, s in scores
        )
        write_text(self.case_path(case_id), _csv(METRICS_COLUMNS, rows))
        self.failure_path(case_id).unlink(missing_ok=True)

    def tell_fold(self, case_id: str, fold: str) -> None:
        """Say of a finished case whether the weights have seen it, where that is known better now than it was then."""
        path = self.case_path(case_id)
        if not path.is_file():
            return
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
        if rows and tuple(rows[0]) == METRICS_COLUMNS and any(row[-1] != fold for row in rows[1:]):
            plain = [[*map(plain_cell, row[:-1]), fold] for row in rows[1:]]
            write_text(path, _csv(METRICS_COLUMNS, plain))

    def write_failure(self, case_id: str, file: str, reason: str) -> None:
        """Store why a case could not be evaluated; it is tried again on restart."""
        row = (case_id, file, " ".join(reason.split()))
        write_text(self.failure_path(case_id), _csv(FAILURES_COLUMNS, [row]))

    def merge(self, case_ids: Sequence[str]) -> list[str]:
        """Write ``metrics.csv`` and ``failures.csv`` of ``case_ids``.

        Returns:
            the cases that failed, sorted.

        Raises:
            ValueError: when a case is neither finished nor failed; the message names it.
        """
        cases = sorted(case_ids)
        waiting = [c for c in cases if not self.finished(c) and not self.failed(c)]
        if waiting:
            raise ValueError(
                f"{self.folder}: {len(waiting)} of {counted(len(cases), 'case')} {are(len(waiting))} not evaluated "
                f"yet, first {waiting[:5]}; run the missing shards before merging"
            )
        good = [c for c in cases if self.finished(c)]
        bad = [c for c in cases if not self.finished(c)]
        write_text(self.folder / FAILURES_FILE, _joined(FAILURES_COLUMNS, [self.failure_path(c) for c in bad]))
        write_text(self.folder / METRICS_FILE, _joined(METRICS_COLUMNS, [self.case_path(c) for c in good]))
        return bad


def origin_path(folder: str | os.PathLike[str], case_id: str) -> Path:
    """Where an evaluation in ``folder`` says what the rows of a case were computed from."""
    return Path(folder) / ORIGINS_FOLDER / f"{_file_name(case_id)}.json"


def read_metrics(path: str | os.PathLike[str]) -> pd.DataFrame:
    """``metrics.csv`` as a table: ``value`` as float with NaN for excluded cases, names as they are (``NA`` too)."""
    table = pd.read_csv(
        path, dtype={"case_id": str, "value": float}, keep_default_na=False, na_values={"value": ["nan"]}
    )
    return table.assign(case_id=table["case_id"].map(plain_cell)) if "case_id" in table else table


def _file_name(case_id: str) -> str:
    return quote(case_id, safe=" ()+,=@") or "_"


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(quoted_row(row) for row in rows)
    return text.getvalue()


def _joined(columns: Sequence[str], paths: Iterable[Path]) -> str:
    header = _csv(columns, [])
    parts = [header]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if not text.startswith(header):
            raise StaleResultsError(f"{path} does not start with the columns {list(columns)}; delete it and run again")
        parts.append(text[len(header) :])
    return "".join(parts)


def _differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for name in list(old) + [n for n in new if n not in old]:
            found += _differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
        return found
    return [] if old == new else [(key or "settings", old, new)]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
