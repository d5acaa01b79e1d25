"""The cases of an evaluation: those of a fold or split, a faulty one as a record with an error."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medmap_monai.data.cohort import scan_cohort
from medmap_monai.data.editions import Edition
from medmap_monai.data.folds import assign_folds
from medmap_monai.data.phantom import DESCRIPTION_FILE
from medmap_monai.data.splits import FOLDS, SplitRow, match_case, name_numbered_cases, read_split
from medmap_monai.data.study_dataset import ERROR

_PARENTS = 4  # <cohort>/HGG/<case>/<file>


class EvaluationRecords:
    """Callable that scans a cohort for evaluation; scanning waits for the call, so configurations build without data.

    Differs from :func:`~medmap_monai.data.cohort.cohort_records`, which trains on all cases or none: a case that cannot
    be used becomes ``{"case_id", "error", "file"}``, is reported as failed, and the others go on.

    Args:
        source: a folder of studies, or a manifest.
        edition: data-set edition; detected when None.
        split_file: only its cases (of ``fold``); a case of it that does not exist is a failed one.
        fold: ``train``, ``val`` or ``test``; None takes every case. Without a split file folds are assigned by case id
            as in training.
        val_fraction, test_fraction, seed: of that assignment; give the values of the training.

    Raises:
        ValueError: for an unknown fold.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        edition: str | Edition | None = None,
        split_file: str | os.PathLike[str] | None = None,
        fold: str | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        if fold is not None and fold not in FOLDS:
            raise ValueError(f"fold {fold!r} is unknown; allowed are {', '.join(FOLDS)}, or None for all cases")
        self.source = Path(source)
        self.edition = edition
        self.split_file = split_file
        self.fold = fold
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.seed = seed

    def __call__(self) -> list[dict[str, Any]]:
        """Records ``{"case_id", "study", "available"}`` or ``{"case_id", "error", "file"}``, sorted by case id.

        Raises:
            FileNotFoundError: ``source`` or ``split_file`` is absent.
            ValueError: no case at all.
        """
        scan = scan_cohort(self.source, self.edition)
        records: dict[str, dict[str, Any]] = {
            study.case_id: {"case_id": study.case_id, "study": study, "available": None} for study in scan.studies
        }
        for error in scan.errors:
            records[error.case_id] = {
                "case_id": error.case_id,
                ERROR: error.message,
                "file": "" if error.path is None else str(error.path),
            }
        if self.split_file is not None:
            split = name_numbered_cases(read_split(self.split_file, scan.edition.modalities), list(records))
            rows = [row for row in split if self._wanted(row)]
            records = _of_split(records, rows, f"split file {self.split_file}")
        elif self.fold is not None:
            folds = assign_folds(list(records), val=self.val_fraction, test=self.test_fraction, seed=self.seed)
            records = {case_id: record for case_id, record in records.items() if folds[case_id] == self.fold}
        if not records:
            raise ValueError(
                f"{self.split_file or self.source} has no case" + (f" in fold {self.fold}" * bool(self.fold))
            )
        return [records[case_id] for case_id in sorted(records)]

    def describe(self) -> dict[str, Any]:
        """``name`` and ``synthetic`` from the ``dataset.json`` of the cohort; empty where there is none.

        Phantom cohorts carry one, so that results on them cannot pass for clinical ones by accident.
        """
        folders = [self.source if self.source.is_dir() else self.source.parent]
        if self.source.is_file():  # a manifest may list files from anywhere
            scan = scan_cohort(self.source, self.edition)
            paths = [source.path for study in scan.studies[:1] for source in study.images.values()]
            folders += [parent for path in paths[:1] for parent in path.absolute().parents[:_PARENTS]]
        for folder in folders:
            try:
                content = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(content, dict):
                return {"name": str(content.get("name", "")), "synthetic": content.get("synthetic") is True}
        return {}

    def _wanted(self, row: SplitRow) -> bool:
        return self.fold is None or row.fold == self.fold


def _of_split(records: Mapping[str, dict[str, Any]], rows: Sequence[SplitRow], split: str) -> dict[str, dict[str, Any]]:
    chosen: dict[str, dict[str, Any]] = {}
    known = set(records)
    for row in rows:
        case_id = match_case(row.case_id, known)
        if case_id is None:
            reason = f"{split} lists this case, but the cohort does not hold it"
            chosen[row.case_id] = {"case_id": row.case_id, ERROR: reason, "file": ""}
        else:
            granted = {} if ERROR in records[case_id] else {"available": row.available}
            chosen[case_id] = {**records[case_id], **granted}
    return chosen


#: what an evaluator takes as data: records, or a callable that gives them
RecordSource = Sequence[Mapping[str, Any]] | Callable[[], Sequence[Mapping[str, Any]]]
