from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medmap_monai.data.study import ImageSource, Study, StudyError
from medmap_monai.methods.case_counts import CaseCounts, count_cases

NAMES = ("flair", "t1ce", "t2")


def record(case: str, on_disk: tuple[str, ...], available: tuple[str, ...] | None = None) -> dict[str, Any]:
    study = Study(case, {name: ImageSource(Path(f"{case}_{name}.nii.gz")) for name in on_disk})
    return {"case_id": case, "study": study, "available": available}


def test_counts_what_exists_and_is_granted() -> None:
    records = [
        record("a", ("flair", "t1ce", "t1", "t2")),
        record("b", ("flair", "t1ce", "t1", "t2"), ("t1", "t2")),
        record("c", ("flair",), ("flair", "t2")),
        record("d", ("t2",)),
    ]
    counts = count_cases(records, NAMES)
    assert (counts.total, counts.per_modality) == (4, (2, 1, 3))
    assert counts.missing_rate_weights() == [2.0, 4.0, 4 / 3]
    assert count_cases(records, ("t2", "flair", "t1ce")).per_modality == (3, 2, 1)


def test_complete_training_counts_what_exists_whatever_the_split_grants() -> None:
    records = [record("a", ("flair", "t1ce", "t2")), record("b", ("flair", "t1ce", "t2"), ("t2",))]
    assert count_cases(records, NAMES, mode="idt").per_modality == (1, 1, 2)
    assert count_cases(records, NAMES, mode="pdt").per_modality == (2, 2, 2)


def test_counts_what_the_transforms_leave() -> None:
    records = [record(str(i), ("flair", "t1ce", "t2")) for i in range(200)]
    counts = count_cases(records, NAMES, rates={"flair": 0.0, "t1ce": 0.5, "t2": 0.8}, seed=1)
    assert counts.per_modality[0] == 200
    assert 80 < counts.per_modality[1] < 120
    assert 25 < counts.per_modality[2] < 60
    subsets = {str(i): "flair" if i else "t1ce+t2" for i in range(200)}
    assert count_cases(records, NAMES, subsets=subsets).per_modality == (199, 1, 1)


def test_a_case_without_any_modality_is_named() -> None:
    with pytest.raises(StudyError, match="case lonely"):
        count_cases([record("lonely", ("t1",))], NAMES)


def test_weights_without_cases_are_neutral() -> None:
    assert count_cases([], NAMES).missing_rate_weights() == [1.0, 1.0, 1.0]
    assert CaseCounts(NAMES, 4, [4, 0, 2]).missing_rate_weights() == [1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("total", "per_modality", "message"),
    [
        (4, {"flair": 1, "t2": 2}, r"must name exactly \['flair', 't1ce', 't2'\], got \['flair', 't2'\]"),
        (4, [1, 2], "3 modalities need as many"),
        (4, [1, 2, 5], r"0\.\.4"),
    ],
)
def test_bad_counts(total: int, per_modality: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CaseCounts(NAMES, total, per_modality)


def test_counts_by_name_follow_the_channel_order() -> None:
    assert CaseCounts(NAMES, 9, {"t2": 3, "flair": 1, "t1ce": 2}).per_modality == (1, 2, 3)
