"""The cases of an evaluation: those of a fold or split, a faulty one as a record with an error."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medmap_monai.data.cohort import scan_cohort, warn_of_straddling
from medmap_monai.data.edition import Edition
from medmap_monai.data.folds import assign_folds
from medmap_monai.data.patients import patient_of, patient_of_study
from medmap_monai.data.splits import FOLDS, SplitRow, match_case, name_numbered_cases, read_split
from medmap_monai.data.study_dataset import ERROR
from medmap_monai.data.training_cases import UNKNOWN, UNSEEN, TrainingCases
from medmap_monai.utils.counted import are, counted
from medmap_monai.utils.synthetic import cohort_marker

_log = logging.getLogger(__name__)

#: fold that takes every case, training cases too
ALL = "all"


class EvaluationRecords:
    """Callable that scans a cohort for evaluation; scanning waits for the call, so configurations build without data.

    Differs from :func:`~medmap_monai.data.cohort.cohort_records`, which trains on all cases or none: a case that cannot
    be used becomes ``{"case_id", "error", "file"}``, is reported as failed, and the others go on.

    Args:
        source: a folder of studies, or a manifest.
        edition: data-set edition; detected when None.
        split_file: only its cases (of ``fold``); a case of it that does not exist is a failed one.
        fold: ``train``, ``val`` or ``test``; without a split file folds are assigned by patient as in training.
            ``all``: every case. None: every case that the weights have not seen, where that is known (see
            :meth:`__call__`), else every case.
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
        if fold is not None and fold not in (*FOLDS, ALL):
            raise ValueError(f"fold {fold!r} is unknown; allowed are {', '.join(FOLDS)}, {ALL}, or None")
        self.source = Path(source)
        self.edition = edition
        self.split_file = split_file
        self.fold = fold
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.seed = seed

    def __call__(self, seen: TrainingCases | None = None) -> list[dict[str, Any]]:
        """Records ``{"case_id", "study", "available"}`` or ``{"case_id", "error", "file"}``, sorted by case id.

        Args:
            seen: the cases that the weights were trained with, where that is known. Each record then has a ``fold``:
                ``train``, ``val`` or ``unseen``; ``unknown`` otherwise. A case is known by its name, its patient,
                or its images, whatever they are called now.

        Raises:
            FileNotFoundError: ``source`` or ``split_file`` is absent.
            ValueError: no case at all, or none that the weights have not seen.
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
            warn_of_straddling(f"split file {self.split_file}", split, scan)
            rows = [row for row in split if self._wanted(row)]
            records = _of_split(records, rows, f"split file {self.split_file}")
        elif self.fold in FOLDS:
            patients = {case_id: _patient(record) for case_id, record in records.items()}
            folds = assign_folds(
                list(records), self.val_fraction, self.test_fraction, seed=self.seed, patients=patients
            )
            records = {case_id: record for case_id, record in records.items() if folds[case_id] == self.fold}
        if not records:
            raise ValueError(
                f"{self.split_file or self.source} has no case" + (f" in fold {self.fold}" * bool(self.fold))
            )
        for case_id, record in records.items():
            record["fold"] = UNKNOWN if seen is None else seen.fold_of(case_id, _patient(record), record.get("study"))
        if self.fold is None and self.split_file is None and seen is not None:
            unseen = {case_id: record for case_id, record in records.items() if record["fold"] == UNSEEN}
            if not unseen:
                raise ValueError(
                    f"the weights have seen all {counted(len(records), 'case')} of {self.source} in training "
                    f"or validation: there is nothing to test them on. fold={ALL} (--fold {ALL}) scores them, "
                    "and says so"
                )
            left_out = len(records) - len(unseen)
            if left_out:
                _log.warning(
                    "%s of %s %s left out: the weights have seen %s in training or validation; fold=%s (--fold %s) "
                    "scores all",
                    left_out,
                    counted(len(records), "case"),
                    are(left_out),
                    "it" if left_out == 1 else "them",
                    ALL,
                    ALL,
                )
            records = unseen
        return [records[case_id] for case_id in sorted(records)]

    def describe(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """``name`` and ``synthetic`` of what ``records`` are, from the markers of their own cohorts; empty without any.

        Phantom cohorts carry a marker, so that results on them cannot pass for clinical ones by accident. Of a mixture
        the name says how many are synthetic, and it counts as such.
        """
        markers = [
            cohort_marker(source.path)
            for record in records
            for source in list(getattr(record.get("study"), "images", {}).values())[:1]
        ]
        synthetic = [marker for marker in markers if marker.get("synthetic")]
        names = sorted({marker["name"] for marker in markers if marker.get("name")})
        if not any(markers):
            return {}
        name = " and ".join(names)
        if synthetic and len(synthetic) < len(markers):
            name = f"{name or 'mixture'} ({len(synthetic)} of {len(markers)} cases {are(len(synthetic))} synthetic)"
        return {"name": name, "synthetic": bool(synthetic)}

    def _wanted(self, row: SplitRow) -> bool:
        return self.fold not in FOLDS or row.fold == self.fold


def _patient(record: Mapping[str, Any]) -> str:
    study = record.get("study")
    return patient_of_study(study) if study is not None else patient_of(str(record["case_id"]))


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
