"""Which cases are of one patient: time points of a patient must not lie on both sides of a split."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import EDITIONS, get_edition
from medmap_monai.data.study import Study
from medmap_monai.utils.counted import counted

#: column of a manifest or split file that says so itself
GROUP = "group"


def patient_of(case_id: str, edition: str | Edition | None = None) -> str:
    """The patient that a case id names: ``BraTS-GLI-00005`` of ``BraTS-GLI-00005-101``; the id itself where none.

    The pattern of ``edition`` decides where it has one, else that of any edition that issues such ids: a list of
    cases, or a manifest, need not say what it is.
    """
    given = [] if edition is None else [get_edition(edition)]
    for known in [*given, *EDITIONS.values()]:
        found = re.fullmatch(known.patient, case_id) if known.patient is not None else None
        if found is not None:
            return found[1]
    return case_id


def patient_of_study(study: Study) -> str:
    """The patient of a study: what its manifest's column ``group`` says, else :func:`patient_of` its id."""
    return str(study.extra.get(GROUP) or "") or patient_of(study.case_id, study.edition)


def straddling(folds: Mapping[str, str], patients: Mapping[str, str]) -> dict[str, list[str]]:
    """Patients whose cases lie in several folds: patient -> folds, sorted.

    Args:
        folds: case id -> fold.
        patients: case id -> patient; a case that is not named is a patient of its own.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for case_id, fold in folds.items():
        found[patients.get(case_id, case_id)].add(fold)
    return {patient: sorted(names) for patient, names in sorted(found.items()) if len(names) > 1}


def straddling_message(source: str, folds: Mapping[str, str], patients: Mapping[str, str]) -> str | None:
    """A sentence about patients with cases in several folds; None where there are none."""
    bad = straddling(folds, patients)
    if not bad:
        return None
    first, names = next(iter(bad.items()))
    return (
        f"{source}: {counted(len(bad), 'patient has', 'patients have')} cases in several folds, "
        f"such as {first} in {' and '.join(names)}: scores on them are not scores on unseen "
        "patients. medmap split keeps patients together"
    )


def patients_of(case_ids: Iterable[str], edition: str | Edition | None = None) -> dict[str, str]:
    """:func:`patient_of` of every case id."""
    return {case_id: patient_of(case_id, edition) for case_id in case_ids}
