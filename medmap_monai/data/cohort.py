"""A cohort as items for MONAI data sets: one record per case, chosen by fold."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmap_monai.data.edition import Edition
from medmap_monai.data.folds import assign_folds
from medmap_monai.data.manifest import scan_manifest
from medmap_monai.data.patients import patient_of, patient_of_study, straddling_message
from medmap_monai.data.splits import FOLDS, SplitRow, match_case, name_numbered_cases, read_split
from medmap_monai.data.studies import StudyScan, combine_errors, scan_studies
from medmap_monai.data.study import Study, StudyError
from medmap_monai.utils.counted import counted


def scan_cohort(source: str | os.PathLike[str], edition: str | Edition | None = None) -> StudyScan:
    """The studies of a folder or of a manifest (``.csv``, ``.json``), beside the errors of the unusable ones.

    Raises:
        FileNotFoundError: ``source`` does not exist (``NotADirectoryError``: it is a file of another kind; the message
            says what to do with it).
        ValueError: as :func:`~medmap_monai.data.studies.scan_studies` and
            :func:`~medmap_monai.data.manifest.scan_manifest`.
    """
    path = Path(source)
    is_manifest = path.suffix.lower() in (".csv", ".json") and not path.is_dir()
    return scan_manifest(path, edition) if is_manifest else scan_studies(path, edition)


def cohort_records(
    source: str | os.PathLike[str],
    edition: str | Edition | None = None,
    split_file: str | os.PathLike[str] | None = None,
    fold: str | None = None,
    must_exist: bool = True,
    val_fraction: float = 0.2,
    test_fraction: float = 0.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Items ``{"case_id", "study", "available"}`` for a MONAI data set, in the order of the case ids.

    ``available`` is what the split grants the case (a tuple of modality names, possibly more than exist on disk), and
    None where nothing is withheld.

    Args:
        source: a folder of studies, or a manifest.
        edition: data-set edition; detected when not given.
        split_file: any file that :func:`~medmap_monai.data.splits.read_split` reads. Its cases, and no others, are
            used; every one of them must exist, and patients with cases in several folds are warned of. Names with the
            published prefixes ``HG_`` and ``LG_`` find their case, and ``#7`` is the seventh of the sorted case ids.
        fold: ``train``, ``val`` or ``test``; None takes every case. Without a split file the folds come from
            :func:`~medmap_monai.data.folds.assign_folds` with the two fractions and the seed: a fixed partition by
            patient that every process and machine computes alike.
        must_exist: False gives an empty list and a warning where ``source`` or ``split_file`` does not exist (so that a
            config can be built before its data are there); any other fault is an error all the same.
        val_fraction, test_fraction, seed: only used with ``fold`` and without ``split_file``.

    Raises:
        FileNotFoundError: ``source`` or ``split_file`` is absent.
        StudyError: a case is unusable, or has none of the modalities that the split grants.
        ValueError: the fold is unknown or empty, or cases of the split are not in ``source``.
    """
    if fold is not None and fold not in FOLDS:
        raise ValueError(f"fold {fold!r} is unknown; allowed are {', '.join(FOLDS)}, or None for all cases")
    absent = [str(path) for path in (source, split_file) if path is not None and not Path(path).exists()]
    if absent and not must_exist:
        warnings.warn(f"{' and '.join(absent)} does not exist: the cohort is empty", stacklevel=2)
        return []
    scan = scan_cohort(source, edition)
    if split_file is not None:
        case_ids = [study.case_id for study in scan.studies] + [error.case_id for error in scan.errors]
        rows = name_numbered_cases(read_split(split_file, scan.edition.modalities), case_ids)
        warn_of_straddling(f"split file {split_file}", rows, scan)
        rows = [row for row in rows if fold is None or row.fold == fold]
        if not rows:
            raise ValueError(f"split file {split_file} has no case in fold {fold}")
        return _granted(scan, rows, f"split file {split_file}", f"cohort {source}")
    if scan.errors:
        raise combine_errors(scan.errors)
    studies = sorted(scan.studies, key=lambda study: study.case_id)
    if fold is not None:
        patients = {study.case_id: patient_of_study(study) for study in studies}
        folds = assign_folds(list(patients), val=val_fraction, test=test_fraction, seed=seed, patients=patients)
        studies = [study for study in studies if folds[study.case_id] == fold]
        if not studies:
            raise ValueError(
                f"fold {fold} of {source} is empty: {counted(len(folds), 'case')}, "
                f"val {val_fraction:g}, test {test_fraction:g}"
            )
    return [_record(study, None) for study in studies]


def warn_of_straddling(source: str, rows: Sequence[SplitRow], scan: StudyScan) -> None:
    """Warn of patients with cases in several folds of a split."""
    known = {study.case_id: patient_of_study(study) for study in scan.studies}
    patients = {row.case_id: row.group or known.get(row.case_id) or patient_of(row.case_id) for row in rows}
    message = straddling_message(source, {row.case_id: row.fold for row in rows}, patients)
    if message is not None:
        warnings.warn(message, stacklevel=3)


def _record(study: Study, available: tuple[str, ...] | None) -> dict[str, Any]:
    return {"case_id": study.case_id, "study": study, "available": available}


def _granted(scan: StudyScan, rows: Sequence[SplitRow], split: str, cohort: str) -> list[dict[str, Any]]:
    """Records of the cases a split lists; faults of other cases do not matter."""
    studies = {study.case_id: study for study in scan.studies}
    faults = {error.case_id: error for error in scan.errors}
    known = set(studies) | set(faults)
    records: dict[str, dict[str, Any]] = {}
    missing: list[str] = []
    bad: list[StudyError] = []
    fewer: list[str] = []
    for row in rows:
        case_id = match_case(row.case_id, known)
        if case_id is None:
            missing.append(row.case_id)
        elif case_id in faults:
            bad.append(faults[case_id])
        elif case_id in records:
            bad.append(StudyError(case_id, f"{split} lists it twice, the second time as {row.case_id}"))
        else:
            study = studies[case_id]
            granted = row.available
            if granted is not None and not set(granted) & set(study.images):
                bad.append(
                    StudyError(
                        case_id, f"{split} grants {'+'.join(granted)}, but only {'+'.join(study.images)} exists on disk"
                    )
                )
            elif granted is not None and not set(granted) <= set(study.images):
                fewer.append(case_id)
            records[case_id] = _record(study, granted)
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(f"{split} lists cases that {cohort} does not hold: {', '.join(missing[:5])}{more}")
    if bad:
        raise combine_errors(bad)
    if fewer:
        warnings.warn(
            f"{split} grants modalities that do not exist on disk to {counted(len(fewer), 'case')}, first {fewer[0]}; "
            "what exists is used",
            stacklevel=3,
        )
    return [records[case_id] for case_id in sorted(records)]
